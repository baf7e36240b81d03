"""Layers whose weight is codes and a codebook."""

import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from compression.quantization.blocks import code_bits, code_dtype, round_codebook, unpack_codes
from compression.quantization.saving import follow_layers_

if TYPE_CHECKING:
    from compression.quantization.activations import ActivationGrid
    from compression.quantization.packed_codes import Codes


def _compiled(codes: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether the compiled kernels apply: float32 in the memory of the processor, and no graph that is recorded."""
    recorded = torch.jit.is_tracing() or torch.compiler.is_compiling()
    plain = type(codes) is torch.Tensor and codes.device.type == "cpu"  # no fake tensor of a tracer
    plain = plain and not recorded and dtype == torch.float32 and sys.byteorder == "little"
    plain = plain and torch.autograd.forward_ad._current_level < 0  # no derivatives that are carried forward
    return plain and not torch._C._are_functorch_transforms_active()  # no `vmap`, `grad` and so on


def _codewords(centroids: torch.Tensor, codes: torch.Tensor, ignored: torch.Tensor | None) -> torch.Tensor:
    if _compiled(codes, centroids.dtype):
        from compression.quantization.compiled_decode import decode

        return decode(centroids, codes.reshape(1, -1)).reshape(*codes.shape, -1)
    return functional.embedding(codes.to(torch.int32), centroids)


class _Gather(torch.autograd.Function):
    """Codewords by index; the gradient of a codeword is the mean, not the sum, over its uses.

    With the sum, as in the released iPQ, a codeword used by a thousand blocks would move a thousand times as far as one
    used once.
    """

    @staticmethod
    def forward(ctx: Any, centroids: torch.Tensor, codes: torch.Tensor, ignored: torch.Tensor | None) -> torch.Tensor:
        inputs = centroids, codes, ignored
        _Gather.setup(ctx, inputs, None)
        return _codewords(*inputs)

    @staticmethod
    def setup(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None], output: Any) -> None:
        centroids, codes, ignored = inputs
        ctx.save_for_backward(codes, ignored)
        ctx.shape = centroids.shape

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        codes, ignored = ctx.saved_tensors
        (gradient,) = gradients
        used, d = ctx.shape
        k = used
        if ignored is not None:  # they count for one more codeword, which is none
            codes, k = torch.where(ignored, k, codes.to(torch.int32)), k + 1
        flat = codes.reshape(-1)
        if torch.is_grad_enabled() or torch._C._are_functorch_transforms_active():  # it may be differentiated again
            rows = gradient.reshape(-1, d).to(torch.promote_types(gradient.dtype, torch.float32))
            places, zeros = flat.to(torch.int32), rows.new_zeros(k, d)
            uses = zeros[:, 0].index_add(0, places, rows.new_ones(flat.shape)).clamp(min=1)
            return (zeros.index_add(0, places, rows) / uses[:, None]).to(gradient.dtype)[:used], None, None
        if _compiled(codes, gradient.dtype):
            from compression.quantization.compiled_decode import mean_by_code

            return mean_by_code(gradient.reshape(-1, d), flat, k)[:used], None, None
        columns = gradient.reshape(-1, d).T.contiguous()
        totals = [torch.bincount(flat, column, minlength=k) for column in columns]  # faster than index_add_ on rows
        uses = torch.bincount(flat, minlength=k).clamp_(min=1)
        return (torch.stack(totals, dim=1) / uses[:, None]).to(gradient.dtype)[:used], None, None


class _GatherInTransforms(_Gather):
    """The form that `torch.func` asks for; outside it would take longer, as PyTorch binds arguments in Python then."""

    generate_vmap_rule = True
    forward = staticmethod(_codewords)  # type: ignore[assignment]
    setup_context = staticmethod(_Gather.setup)


def gather_codewords(centroids: torch.Tensor, codes: torch.Tensor, ignored: torch.Tensor | None = None) -> torch.Tensor:
    """Look up codewords.

    Parameters
    ----------
    centroids
        (K, d).
    codes
        (...) integers.
    ignored
        Which entries of `codes` do not count as uses, of a shape that broadcasts to theirs; none if ``None``.

    Returns
    -------
    torch.Tensor
        (..., d). Its gradient reaches a centroid averaged over the entries of `codes` that use it.
    """
    in_transforms = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    return (_GatherInTransforms if in_transforms else _Gather).apply(centroids, codes, ignored)


def _straight_through(value: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """The value, with its gradient going to `latent` too."""
    return value + (latent - latent.detach())


_ROUNDING = "rounding of the input"


def _nothing(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Hook of layers that round their input: `torch.nn.TransformerEncoderLayer` calls only layers that have hooks."""


def _narrowed(codes: torch.Tensor, k: int) -> torch.Tensor:
    """Codes in the type of `code_dtype`, on which the kernels count, as on their being below `k`."""
    if codes.numel() and not codes.is_meta and not (int(codes.min()) >= 0 and int(codes.max()) < k):
        raise ValueError(f"Argument `codes` must lie in 0..{k - 1}, but spans {int(codes.min())}..{int(codes.max())}.")
    return codes.to(code_dtype(k))


class _PQWeight(nn.Module):
    """A (rows, features) weight held as codes (rows, features / d) and centroids (K, d).

    ``codebook_dtype`` is the type in which the centroids will be stored, see `PQConfig`; until
    `compression.quantization.storage.round_` they may have any values. Several layers may have the same parameter as
    ``centroids``: it is stored once, and its gradient is the sum of the averages in each of them.

    ``latent`` (rows, features), if set, receives the gradient of the weight as if it were the weight (straight-through
    estimator) and changes no value; it is no part of the state. ``activations``, of linear layers and convolutions, is
    the grid to which the input is rounded, see `compression.quantization.activations`; it is no part of the state
    either, but of the file.
    """

    centroids: nn.Parameter
    codes: torch.Tensor
    codebook_dtype = "float16"
    latent: torch.Tensor | None = None
    _activations: "ActivationGrid | None" = None

    def __init__(self, centroids: torch.Tensor, codes: torch.Tensor) -> None:
        super().__init__()
        if centroids.ndim != 2 or not centroids.is_floating_point():
            raise ValueError(
                f"Argument `centroids` must be floating point of shape (K, d), but is {centroids.dtype} of shape "
                f"{tuple(centroids.shape)}."
            )
        if codes.ndim != 2 or codes.is_floating_point():
            raise ValueError(
                f"Argument `codes` must be integers of shape (rows, blocks), but is {codes.dtype} of shape "
                f"{tuple(codes.shape)}."
            )
        self.centroids = nn.Parameter(centroids.detach().clone())
        self.register_buffer("codes", _narrowed(codes, len(centroids)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Read codes as they are in memory or packed as in the file, as trainers read their checkpoints."""
        state = dict(state_dict)
        codes, centroids = state.pop(f"{prefix}codes", None), state.get(f"{prefix}centroids")
        try:
            if centroids is not None and not centroids.is_floating_point():
                raise ValueError(
                    f"its codebook is {centroids.dtype}, whose scale stands in the description of the file; use "
                    "`from_pretrained` or `load_compressed_`."
                )
            if codes is not None and codes.ndim == 1:
                shape, device = self._stored_codes.shape, codes.device
                numbers = unpack_codes(codes.cpu().numpy(), code_bits(self.n_centroids), shape[0] * shape[1])
                codes = torch.from_numpy(numbers).reshape(shape).to(device)
            if codes is not None:
                codes = _narrowed(codes, self.n_centroids)
        except ValueError as error:
            args[-1].append(f"Layer {prefix[:-1]!r} cannot be read: {error}")  # raised by `load_state_dict`
            return
        if codes is not None:
            state |= {f"{prefix}{name}": buffer for name, buffer in self._buffers_of(codes).items()}
        super()._load_from_state_dict(state, prefix, *args)

    def _buffers_of(self, codes: torch.Tensor) -> dict[str, torch.Tensor]:
        """The buffers that hold codes (rows, blocks)."""
        return {"codes": codes}

    @property
    def activations(self) -> "ActivationGrid | None":
        """The grid to which the input is rounded."""
        return self._activations

    @activations.setter
    def activations(self, grid: "ActivationGrid | None") -> None:
        self._activations = grid
        hooks: dict[Any, Any] = self._forward_pre_hooks
        hooks.pop(_ROUNDING, None)
        if grid is not None:
            hooks[_ROUNDING] = _nothing

    @property
    def n_centroids(self) -> int:
        """Codewords K."""
        return self.centroids.shape[0]

    @property
    def block_size(self) -> int:
        """Features d in a block."""
        return self.centroids.shape[1]

    @property
    def codebook(self) -> torch.Tensor:
        """The centroids; while an int8 codebook is trained, at their rounded values with the gradient going through.

        Rounding only after the training would lose what it gained: one large centroid makes the grid coarse. A graph
        that is exported has them as they are, as inference does.
        """
        if self.codebook_dtype != "int8" or not torch.is_grad_enabled() or torch.compiler.is_exporting():
            return self.centroids
        rounded = round_codebook(self.centroids.detach(), "int8")
        return self.centroids + (rounded - self.centroids.detach())

    @property
    def weight(self) -> torch.Tensor:
        """The decoded weight, (rows, features), connected to the centroids for gradients."""
        if self.latent is None and self._decodes_plainly:
            from compression.quantization.compiled_decode import decode

            return decode(self.codebook, self._stored_codes)
        decoded = gather_codewords(self.codebook, self.codes).flatten(1)
        return decoded if self.latent is None else _straight_through(decoded, self.latent.flatten(1))

    @property
    def _stored_codes(self) -> "Codes":
        """The codes as they lie in memory, for the compiled kernels."""
        return self.codes

    def _codes_of(self, ids: torch.Tensor) -> torch.Tensor:
        """The codes of some rows: (...) integers to (..., blocks); ids are checked as `torch.nn.Embedding` does it."""
        return functional.embedding(ids, self.codes)

    @property
    def _decodes_plainly(self) -> bool:
        """Whether nothing but the values is needed, and the compiled kernel gives them."""
        recorded = torch.is_grad_enabled() and self.centroids.requires_grad
        return not recorded and _compiled(self.codes, self.centroids.dtype)

    def dense(self) -> nn.Module:
        """Return a layer of PyTorch with the decoded weight."""
        raise NotImplementedError


class PQLinear(_PQWeight):
    """Linear layer with a product-quantized weight.

    Parameters
    ----------
    centroids
        (K, d) codebook, trainable.
    codes
        (out_features, in_features / d) integers below K; kept in the smallest integer type.
    bias
        (out_features,) or ``None``.

    Notes
    -----
    The gradient of a centroid is the average over the blocks that use it. The state dict holds ``centroids``, ``codes``
    and ``bias``: the compressed form.
    """

    def __init__(self, centroids: torch.Tensor, codes: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__(centroids, codes)
        if bias is not None and bias.shape != codes.shape[:1]:
            raise ValueError(f"Argument `bias` must have shape ({len(codes)},), but has {tuple(bias.shape)}.")
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @property
    def in_features(self) -> int:
        """Features of the input."""
        return self.codes.shape[1] * self.block_size

    @property
    def out_features(self) -> int:
        """Features of the output."""
        return self.codes.shape[0]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Apply the layer: (..., in_features) to (..., out_features)."""
        x = input  # named as in `torch.nn.Linear`
        from_codes = self._computes_from_codes(x)
        if self.activations is not None:
            if from_codes and self.codebook_dtype == "int8" and (out := self._in_integers(x)) is not None:
                return out
            x = self.activations.simulate(x)
        if from_codes:
            from compression.quantization.lookup import linear_from_codes

            return linear_from_codes(x, self.codebook, self._stored_codes, self.bias)
        return functional.linear(x, self.weight, self.bias)

    def _in_integers(self, x: torch.Tensor) -> torch.Tensor | None:
        """The output from integers, or ``None`` where they are not faster or the codebook is not of integers."""
        from compression.quantization.integers import linear_in_integers, multiplies_int8

        if self.activations is None or not multiplies_int8():
            return None
        return linear_in_integers(x, self.activations, self.codebook, self.codes, self.bias)

    def _computes_from_codes(self, x: torch.Tensor) -> bool:
        """Whether only values of float32 are asked for, without gradients, so that the weight is not needed as such."""
        plain = self._decodes_plainly and type(x) is torch.Tensor  # first of all: sizes that are traced are no numbers
        tensors = [tensor for tensor in (x, self.centroids, self.bias) if tensor is not None]
        plain = plain and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        plain = plain and x.shape[-1:] == (self.in_features,) and not torch.is_autocast_enabled("cpu")
        recorded = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        return plain and not recorded and self.latent is None

    def dense(self) -> nn.Linear:
        """Return a linear layer with the decoded weight."""
        layer = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        return _filled(layer, self.weight, self.bias).train(self.training)

    def extra_repr(self) -> str:
        """Return the sizes for the printed form."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, n_centroids={self.n_centroids}, "
            f"block_size={self.block_size}, bias={self.bias is not None}"
        )


class PQEmbedding(_PQWeight):
    """Embedding with a product-quantized table; only the rows asked for are decoded.

    Parameters
    ----------
    centroids
        (K, d) codebook, trainable.
    codes
        (num_embeddings, embedding_dim / d) integers below K.
    padding_idx
        Row whose look-ups give no gradient, as in `torch.nn.Embedding`; negative counts from the end.

    Notes
    -----
    The gradient of a centroid is the average over its uses in the batch, those for padding left out.
    """

    def __init__(self, centroids: torch.Tensor, codes: torch.Tensor, padding_idx: int | None = None) -> None:
        super().__init__(centroids, codes)
        n = len(codes)
        if padding_idx is not None and not -n <= padding_idx < n:
            raise ValueError(f"Argument `padding_idx` must lie in {-n}..{n - 1}, but was {padding_idx}.")
        self.padding_idx = padding_idx if padding_idx is None or padding_idx >= 0 else padding_idx + n

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        return self.codes.shape[0]

    @property
    def embedding_dim(self) -> int:
        """Features of a row."""
        return self.codes.shape[1] * self.block_size

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Look up rows: (...) integers, int64 or int32, to (..., embedding_dim).

        Raises
        ------
        IndexError
            If an id is not in 0..num_embeddings - 1, on the CPU; there is no counting from the end.
        RuntimeError
            If ids are of another type.
        """
        ids, padding = input, None
        if self.padding_idx is not None and torch.is_grad_enabled():
            padding = (ids == self.padding_idx).unsqueeze(-1)
        rows = gather_codewords(self.codebook, self._codes_of(ids), padding).flatten(-2)
        if self.latent is not None:
            rows = _straight_through(rows, functional.embedding(ids, self.latent))
        return rows if padding is None else torch.where(padding, rows.detach(), rows)

    def dense(self) -> nn.Embedding:
        """Return an embedding with the decoded table."""
        layer = nn.Embedding(self.num_embeddings, self.embedding_dim, self.padding_idx, device="meta")
        return _filled(layer, self.weight, None).train(self.training)

    def extra_repr(self) -> str:
        """Return the sizes for the printed form."""
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, n_centroids={self.n_centroids}, "
            f"block_size={self.block_size}, padding_idx={self.padding_idx}"
        )


def _filled(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> Any:
    """Give a layer on the meta device its values."""
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def decode_(model: nn.Module) -> nn.Module:
    """Replace the product-quantized layers of a model by dense ones with the decoded weights, in place.

    For inference where the memory of the dense weights is there, on one token at a time above all. Inputs that were
    rounded (see `compression.quantization.activations`) are no longer.
    """
    for name, module in pq_modules(model).items():
        model.set_submodule(name, module.dense())
    return follow_layers_(model)


def pq_modules(model: nn.Module) -> dict[str, _PQWeight]:
    """Return the product-quantized layers of a model by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, _PQWeight)}


DENSE = (nn.Linear, nn.Embedding, nn.Conv2d)
"""Layers of PyTorch whose weight can be held as codes."""


def unfit_layer(module: nn.Module) -> str | None:
    """Return why the weight of a layer cannot be held as codes, whatever the model: a whole phrase for messages."""
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return f"it shortens the rows that it looks up to `max_norm` {module.max_norm}"
    own = any(isinstance(module, kind) and type(module).forward is not kind.forward for kind in DENSE)
    if own or (isinstance(module, nn.Conv2d) and type(module)._conv_forward is not nn.Conv2d._conv_forward):
        return f"its class {type(module).__name__} has a `forward` of its own, which would be lost"
    if isinstance(module, DENSE) and "weight" not in module._parameters:
        return "its weight is computed from other tensors (end the pruning or remove the parametrization first)"
    return None


def unfit_layers(model: nn.Module) -> dict[str, str]:
    """Return the layers of a model that cannot be held as codes, by name, and why not: whole phrases for messages."""
    places: dict[int, list[str]] = {}
    reasons = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for leaf, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            places.setdefault(id(parameter), []).append(f"{name}.{leaf}" if name else leaf)
        if reason := unfit_layer(module):
            reasons[name] = reason
    for names in places.values():
        for name in names:
            if len(names) > 1 and name.endswith(".weight"):
                others = " and ".join(repr(other) for other in names if other != name)
                reasons.setdefault(name.removesuffix(".weight"), f"it shares its weight with {others}")
    return reasons
