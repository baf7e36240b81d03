"""Keys, conventions and JSON Schema of the spin-system file."""

from typing import Any

EXCHANGE_CONVENTIONS: dict[str, float] = {
    "-2 J S1.S2": 1.0,
    "+2 J S1.S2": -1.0,
    "-J S1.S2": 0.5,
    "+J S1.S2": -0.5,
    "-J (2 S1.S2 + 1/2)": 1.0,
}
"""What the J of each convention is multiplied by to be that of -2 J S1.S2."""

ZFS_CONVENTIONS: dict[str, float] = {
    "D (Sz^2 - S(S+1)/3) + E (Sx^2 - Sy^2)": 1.0,
    "D (Sz^2 - S(S+1)/3) - E (Sx^2 - Sy^2)": -1.0,
}
"""Sign of the E of each convention."""

TOP_KEYS = ("format", "version", "conventions", "spins", "couplings", "field")
SPIN_KEYS = ("name", "spin", "isotope", "g", "zfs", "position")
COUPLING_KEYS = ("between", "exchange", "dipolar", "hyperfine")
FORMAT, VERSION = "spin system", 1

_QUANTITY = {"type": "string", "description": "number and unit, '68 cm^-1'"}
_ROWS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}, "minItems": 3}, "minItems": 3}
_FRAME = {
    "type": "object",
    "description": "euler_zyz: three quantities ('30 deg'); axes: rotation matrix with the tensor's axes as columns",
    "properties": {"euler_zyz": {"type": "array", "items": _QUANTITY}, "axes": _ROWS},
    "additionalProperties": False,
}
_TENSOR = {
    "description": "a quantity (isotropic); principal values or a matrix with their unit, and a frame",
    "anyOf": [
        _QUANTITY,
        {
            "type": "object",
            "properties": {
                "matrix": _ROWS,
                "principal": {"type": "array", "items": {"type": "number"}},
                "unit": {"type": "string"},
                "frame": _FRAME,
            },
            "additionalProperties": False,
        },
    ],
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["format", "version", "spins"],
    "additionalProperties": False,
    "properties": {
        "format": {"const": FORMAT},
        "version": {"const": VERSION},
        "conventions": {
            "type": "object",
            "description": "exchange is required with any exchange coupling, zfs with any d or e",
            "properties": {
                "exchange": {"enum": list(EXCHANGE_CONVENTIONS)},
                "zfs": {"enum": list(ZFS_CONVENTIONS)},
            },
            "additionalProperties": False,
        },
        "spins": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "spin": {"type": "number"},
                    "isotope": {"type": "string", "description": "of a nucleus, '14N', in place of spin"},
                    "g": {"description": "number; {principal, frame} or {matrix}; of a nucleus, its nuclear g-factor"},
                    "zfs": {
                        "description": "{d, e, frame}, or a traceless {matrix, unit}; quadrupole coupling of a nucleus",
                        "type": "object",
                    },
                    "position": {"type": "array", "items": _QUANTITY, "description": "for point dipoles"},
                },
            },
        },
        "couplings": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["between"],
                "additionalProperties": False,
                "properties": {
                    "between": {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
                    "exchange": _QUANTITY,
                    "dipolar": {"anyOf": [_TENSOR, {"const": "from positions"}]},
                    "hyperfine": _TENSOR,
                },
            },
        },
        "field": {"description": "a quantity (along z) or three", "anyOf": [_QUANTITY, {"type": "array"}]},
    },
}
"""JSON Schema of the file."""
