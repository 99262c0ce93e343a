"""SageMaker, one module per kind of resource."""

from localaws.sagemaker import endpoints, features, memory, models, notebooks, registry, studio, tags

__all__ = ["endpoints", "features", "memory", "models", "notebooks", "registry", "studio", "tags"]
