"""The file on disk: checksums, damage in any bit, versions, several files with an index."""

import copy
import json
import os
import stat

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from benchmarks.storage.__main__ import TABLE_BITS, entropy_bytes
from compression import PQConfig, PQLinear, Rule, load_compressed_, quantize_, save_compressed
from compression.cli import main
from compression.quantization.files import FORMAT, read_tensors, sealed
from compression.quantization.storage import CompressedFileError, file_bytes, layer_bytes, read_header, round_


def make_net(seed=0):
    """Return a small classifier: embedding, two linear layers, a norm."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Embedding(50, 16, padding_idx=1), nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net


def compressed_net(seed=0):
    """Return it with the embedding and one linear layer quantized, at the values that are stored."""
    net = make_net(seed)
    quantize_(net, {"0": PQConfig(n_centroids=12, block_size=4), "1": PQConfig(n_centroids=16, codebook_dtype="int8")})
    round_(net)
    return net


def test_values_beyond_the_range_of_half_precision_are_stored_exactly(tmp_path):
    net = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)).eval()
    net[1].running_var.fill_(5.6e6)
    nn.init.normal_(net[2].weight, std=1e5, generator=torch.Generator().manual_seed(0))
    fresh = copy.deepcopy(net)
    quantize_(net, {"0|2": PQConfig(n_centroids=8, block_size=4)})
    before = copy.deepcopy(net.state_dict())
    round_(net)
    save_compressed(net, tmp_path / "model.safetensors")
    stored = read_tensors(tmp_path)[1]
    for name in ("1.running_var", "2.centroids"):
        assert torch.equal(stored.pop(name), before[name])
        assert torch.equal(net.state_dict()[name], before[name])
    assert before["2.centroids"].isfinite().all()
    assert torch.float32 not in {tensor.dtype for tensor in stored.values()}
    loaded = load_compressed_(fresh, tmp_path).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in net.state_dict().items())


def contents(folder):
    """Return the bytes of each file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the bytes of a saved model, whole and in parts."""
    whole, parts = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("parts")
    save_compressed(compressed_net(), whole / "model.safetensors", extra={"note": "é"})
    save_compressed(compressed_net(), parts / "model.safetensors", extra={"note": "é"}, max_shard_bytes=300)
    return {"whole": contents(whole), "parts": contents(parts)}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """Return a folder that each example fills anew."""
    return tmp_path_factory.mktemp("scratch")


@settings(max_examples=250, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", ["whole", "parts"])
def test_a_flipped_bit_anywhere_is_detected_and_changes_nothing(saved, scratch, kind, data):
    files = saved[kind]
    name = data.draw(st.sampled_from(sorted(files)))
    bit = data.draw(st.integers(0, 8 * len(files[name]) - 1))
    for path in scratch.iterdir():
        path.unlink()
    for other, content in files.items():
        (scratch / other).write_bytes(content)
    changed = bytearray(files[name])
    changed[bit // 8] ^= 1 << bit % 8
    (scratch / name).write_bytes(changed)
    net = make_net(5)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(CompressedFileError):
        load_compressed_(net, scratch)
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


@settings(max_examples=80, deadline=None)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_truncated_or_lengthened_file_is_refused(saved, scratch, fraction):
    content = saved["whole"]["model.safetensors"]
    path = scratch / "cut.safetensors"
    for damaged in (content[: int(fraction * len(content))], content + content[: 1 + int(fraction * 64)]):
        path.write_bytes(damaged)
        with pytest.raises(CompressedFileError, match="truncated or not a safetensors file"):
            load_compressed_(make_net(), path)


def test_damage_in_a_tensor_names_it(saved, tmp_path):
    path = tmp_path / "model.safetensors"
    content = bytearray(saved["whole"]["model.safetensors"])
    start = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:start])
    for name in ("0.codes", "1.centroids", "3.bias"):
        damaged = bytearray(content)
        damaged[start + entries[name]["data_offsets"][0]] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CompressedFileError, match=f"tensor '{name}' does not have the checksum"):
            load_compressed_(make_net(), path)


@pytest.mark.parametrize("version", [2, 3])
def test_a_flipped_bit_of_the_version_does_not_switch_off_the_checksums(tmp_path, version):
    net = make_net()
    net[3] = nn.Linear(32, 2, bias=False)
    shared = Rule(pattern="1|3", config=PQConfig(n_centroids=8, block_size=4), shared=version == 3)
    quantize_(net, [shared])
    round_(net)
    path = tmp_path / "model.safetensors"
    save_compressed(net, path)
    content = path.read_bytes()
    place = content.index(b'version\\": ') + len(b'version\\": ')
    assert content[place : place + 1] == str(version).encode()
    for bit in range(8):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        with pytest.raises(CompressedFileError):
            read_tensors(path)


@pytest.mark.parametrize(
    "layers",
    [
        None,
        [],
        {"a": {}},
        {"a": {"kind": "linear", "bits": 2, "shape": [4]}},
        {"a": {"kind": "linear", "bits": 2, "shape": [4, 2], "codebook": 1}},
        {"a": {"kind": "linear", "bits": 2, "shape": [4, 2]}},  # without its tensors
    ],
)
@pytest.mark.parametrize("old", [True, False])
def test_a_foreign_description_is_an_error(tmp_path, capsys, layers, old):
    path = tmp_path / "model.safetensors"
    tensors = {"b": torch.zeros(1)}
    header = {"version": 1 if old else 2, "extra": {}} | ({} if layers is None else {"layers": layers})
    save_file(tensors, path, metadata={FORMAT: json.dumps(header)} if old else sealed(tensors, header))
    for read in (layer_bytes, lambda path: load_compressed_(make_net(), path)):
        with pytest.raises(CompressedFileError, match=r"is damaged or foreign|is damaged in layer 'a': it lacks"):
            read(path)
    assert main(["inspect", str(path)]) == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_layer_of_another_kind_or_with_another_bias_does_not_fit(tmp_path):
    net = nn.Sequential(nn.Linear(8, 16, bias=False))
    quantize_(net, {"0": PQConfig(n_centroids=4, block_size=4)})
    save_compressed(net, tmp_path / "model.safetensors")
    for other in (nn.Embedding(16, 8), nn.Linear(8, 16)):
        with pytest.raises(CompressedFileError, match="does not fit the model: '0' is linear, without bias, not "):
            load_compressed_(nn.Sequential(other), tmp_path)
    assert isinstance(load_compressed_(nn.Sequential(nn.Linear(8, 16, bias=False)), tmp_path)[0], PQLinear)


def test_every_tensor_has_its_checksum(saved, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(saved["whole"]["model.safetensors"])
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        assert len(header["checksums"]) == len(list(file.keys())) == len(set(header["checksums"]))
        assert file.metadata()["format"] == "pt"


def test_versions(tmp_path):
    net = compressed_net()
    path = tmp_path / "model.safetensors"
    save_compressed(net, path)
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        header = json.loads(file.metadata()[FORMAT])
    save_file(tensors, path, metadata=sealed(tensors, header | {"version": 4}))
    with pytest.raises(CompressedFileError, match="has version 4, but this reads 1, 2, 3"):
        load_compressed_(make_net(), path)
    old = {key: header[key] for key in ("format", "layers", "extra")} | {"version": 1}
    save_file(tensors, path, metadata={FORMAT: json.dumps(old)})
    ids = torch.arange(50)
    assert torch.equal(load_compressed_(make_net(3), path)(ids), net(ids))


@pytest.mark.parametrize("limit", [1, 100, 300])
def test_parts_hold_what_one_file_holds(tmp_path, limit):
    net = compressed_net()
    path = tmp_path / "model.safetensors"
    whole = save_compressed(net, path)
    rows = {row["name"]: row["bytes"] for row in layer_bytes(path)}
    assert whole == path.stat().st_size == file_bytes(net) == sum(rows.values())
    size = save_compressed(net, path, max_shard_bytes=limit)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names[-1] == "model.safetensors.index.json"
    assert names[0] == f"model-00001-of-{len(names) - 1:05d}.safetensors"
    assert size == sum(entry.stat().st_size for entry in tmp_path.iterdir())
    ids = torch.arange(50)
    for where in (path, tmp_path, tmp_path / names[-1]):
        assert torch.equal(load_compressed_(make_net(3), where)(ids), net(ids))
    for row in layer_bytes(path):
        assert row["name"] == "(header)" or row["bytes"] == rows[row["name"]]
    assert sum(row["bytes"] for row in layer_bytes(path)) == size
    # A later model takes the place of all of it.
    save_compressed(compressed_net(1), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_parts_of_two_models_and_missing_parts(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        save_compressed(compressed_net(seed), folder / "model.safetensors", max_shard_bytes=300)
    first = min(path.name for path in folders[0].glob("*-of-*"))
    (folders[0] / first).write_bytes((folders[1] / first).read_bytes())
    with pytest.raises(CompressedFileError, match="parts of different models"):
        load_compressed_(make_net(), folders[0])
    (folders[1] / first).unlink()
    with pytest.raises(CompressedFileError, match=f"{first}' does not exist"):
        load_compressed_(make_net(), folders[1])
    index = folders[0] / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": {"a": "../b.safetensors"}}))
    with pytest.raises(CompressedFileError, match="no index of parts"):
        load_compressed_(make_net(), folders[0])


def test_one_part_of_several_is_no_damage(tmp_path, capsys):
    save_compressed(compressed_net(), tmp_path / "model.safetensors", max_shard_bytes=300)
    parts = sorted(tmp_path.glob("*-of-*"))
    assert len(parts) > 1
    for part in parts:
        assert main(["inspect", str(part)]) == 2
        error = capsys.readouterr().err
        assert (
            f"File '{part}' is one part of several, which are read together: name their folder, '{tmp_path}'" in error
        )
        assert "damaged" not in error
        with pytest.raises(CompressedFileError, match="one part of several"):
            load_compressed_(make_net(), part)
    for where in (tmp_path, tmp_path / "model.safetensors.index.json"):
        assert main(["inspect", str(where)]) == 0
        assert "0.weight" in capsys.readouterr().out
    # A file that is not named as a part, and lacks a tensor, is damaged.
    tensors = {name: tensor for name, tensor in read_tensors(tmp_path)[1].items() if name != "3.bias"}
    with safe_open(parts[0], framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, tmp_path / "alone.safetensors", metadata=metadata)
    assert main(["inspect", str(tmp_path / "alone.safetensors")]) == 2
    assert "is damaged: it has 8 tensors, but 9 checksums" in capsys.readouterr().err


def test_bad_limit(tmp_path):
    with pytest.raises(ValueError, match="`max_shard_bytes`"):
        save_compressed(compressed_net(), tmp_path / "model.safetensors", max_shard_bytes=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("")
    save_compressed(compressed_net(), tmp_path / "model.safetensors")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("d", [1, 2, 3, 4, 6, 8, 16])
@pytest.mark.parametrize("k", [5, 300, 40_000])
def test_compiled_decoding_gives_the_bits_of_a_gather(d, k):
    generator = torch.Generator().manual_seed(d * k)
    codes = torch.randint(0, k, (7, 9), generator=generator)
    layer = PQLinear(torch.randn(k, d, generator=generator), codes)
    with torch.no_grad():
        layer.centroids[0, 0] = -0.0
        compiled = layer.weight
    assert layer.weight.requires_grad
    assert not compiled.requires_grad
    expected = layer.centroids.detach()[codes].flatten(1)
    assert torch.equal(compiled.view(torch.int32), expected.view(torch.int32))


def test_entropy_by_hand():
    codes = np.repeat(np.arange(4), [4000, 2000, 1000, 1000])
    assert entropy_bytes(codes, 4) == pytest.approx((1.75 * 8000 + 4 * TABLE_BITS) / 8)
    assert entropy_bytes(np.arange(256), 256) == 256
