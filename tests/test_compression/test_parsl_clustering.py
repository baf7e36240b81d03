"""Layers clustered by Parsl's workers are those of one process, code by code."""

import pytest
import torch
from torch import nn

from compression.quantization.blocks import PQConfig
from compression.quantization.layers import pq_modules
from compression.quantization.rules import quantize_
from shared.tasks import parallel_config


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called:RuntimeWarning")
def test_parsl_clusters_layers_as_one_process_does():
    pytest.importorskip("parsl")
    codes = []
    for executor in ("processes", "parsl"):
        generator = torch.Generator().manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 16))
        for parameter in model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        with parallel_config(executor):
            quantize_(model, {".*": PQConfig(block_size=4, n_centroids=8)}, seed=3, n_workers=2)
        codes.append({name: module.codes for name, module in pq_modules(model).items()})
    assert len(codes[0]) == 2
    for name, expected in codes[0].items():
        assert torch.equal(codes[1][name], expected)
