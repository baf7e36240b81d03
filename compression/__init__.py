"""Partitioning-Guided k-means iterative product quantization with Quant-Noise.

Importing the package loads neither torch nor numpy: public names are resolved on first use. urllib3 tries
``from compression import zstd`` on every import of the Python 3.14 standard-library name, so nothing here may raise
anything but `AttributeError` or `ImportError`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "clustering.lloyd": ["KMeansResult", "kmeans", "pg_kmeans"],
        "quantization.activations": ["quantize_activations_"],
        "quantization.blocks": ["PQConfig"],
        "quantization.budget": ["compress"],
        "quantization.compact": ["compact_"],
        "quantization.convolution": ["PQConv2d"],
        "quantization.hf": ["attach_quantizer_"],
        "quantization.layers": ["PQEmbedding", "PQLinear"],
        "quantization.onnx_export": ["export_onnx"],
        "quantization.quant_noise": ["NoiseConfig", "add_quant_noise", "remove_quant_noise"],
        "quantization.rules": ["Rule", "preset_rules", "quantize_"],
        "quantization.storage": ["load_compressed_", "save_compressed"],
        "training.batches": ["EncodedData"],
        "training.distillation": ["DistillationConfig"],
        "training.ipq": ["IPQConfig", "ipq"],
        "training.noise_callback": ["QuantNoiseCallback"],
    },
)
