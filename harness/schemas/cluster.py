"""The schema of a cluster profile, and of `cluster:` in a grid."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.grid.cluster_profile import BY_NAME, FIELDS, PREPARE_FIELDS, PROFILE_FIELDS, RENAMED, SLURM_NAMES
from harness.grid.resources import OF_A_JOB, OF_SBATCH
from harness.schemas.descriptions import meanings
from harness.schemas.values import Schema, Texts, comments, defaults, field_schema, value_schema
from jobs.experiment.limits import CLUSTER, NOTIFY, PREPARE
from jobs.experiment.specs import ClusterSpec, ContainerSpec, NotifySpec, PrepareSpec, ProfileSpec
from models.typed import fields_of

VARIABLES: Schema = {"type": ["object", "null"], "additionalProperties": {"type": ["string", "number", "boolean"]}}
SECTIONS = ("profile", "prepare", "container", "notify")  # mappings themselves
NAME = "the option of sbatch of this name, through submitit"


def cluster_schema() -> Schema:
    """The mapping of a profile. Lists do not expand here."""
    texts = Texts(descriptions=meanings("grid.md", "Cluster"), defaults=defaults(ClusterSpec), limits=CLUSTER)
    own = {name: field_schema(name, hint, texts, expands=False) for name, hint in FIELDS.items() if name not in SECTIONS}
    special: dict[str, Schema] = {
        "setup": own["setup"] | {"type": ["array", "null"]},
        "environment": {"description": texts.descriptions["environment"], **VARIABLES},
        "profile": {"description": texts.descriptions["profile"], **profile_schema()},
        "prepare": {"description": texts.descriptions["prepare"], **prepare_schema()},
        "container": {"description": texts.descriptions["container"], **container_schema()},
        "notify": {"description": texts.descriptions["notify"], **notify_schema()},
    }
    schema = with_slurm(own | special, FIELDS)
    schema["properties"]["slurm"] = {"description": texts.descriptions["slurm"], **with_slurm(own | special, FIELDS), "type": ["object", "null"]}
    return schema


def resources_schema() -> Schema:
    """`cluster:` of an entry: some of the keys of a profile."""
    texts = Texts(descriptions=meanings("grid.md", "Cluster"), defaults=defaults(ClusterSpec), limits=CLUSTER)
    own = {name: field_schema(name, FIELDS[name], texts, expands=False) for name in OF_A_JOB}
    others = {given: name for given, name in RENAMED.items() if name in OF_A_JOB}
    given = with_slurm(own, OF_A_JOB, OF_SBATCH, others) | {"type": ["object", "null"]}
    return given | {"properties": given["properties"] | {"slurm": given}}


def with_slurm(
    properties: Mapping[str, Schema], fields: Iterable[str], names: Sequence[str] = SLURM_NAMES, others: Mapping[str, str] = RENAMED
) -> Schema:
    """A mapping of fields and of SLURM's parameters, which may have the prefix `slurm_`. The kind alone may not."""
    parameters: dict[str, Schema] = {name: {"description": NAME} for name in names if name not in properties}
    renamed: dict[str, Schema] = {given: {"description": f"{name}, by submitit's name"} for given, name in others.items()}
    prefixed = [name for name in (*fields, *names, *others) if name != "kind"]
    return {
        "type": "object",
        "properties": dict(properties) | renamed | parameters,
        "patternProperties": {f"^slurm_(?:{'|'.join(prefixed)})$": {}},
        "additionalProperties": False,
    }


def profile_schema() -> Schema:
    """The measuring protocols: for each axis a value or a list of values."""
    described = comments(ProfileSpec)
    axes: dict[str, Any] = {}
    for name, hint in PROFILE_FIELDS.items():
        values = value_schema(hint)
        axes[name] = {"description": described.get(name, "number format of the network"), "anyOf": [values["items"], values]}
    return {"type": ["object", "null"], "properties": axes, "additionalProperties": False}


def prepare_schema() -> Schema:
    """The jobs that write data."""
    described = {"timeout_min": "minutes", "mem_gb": "memory of a job", **comments(PrepareSpec)}
    texts = Texts(descriptions=described, defaults=defaults(PrepareSpec), limits=PREPARE)
    own = {name: field_schema(name, hint, texts, expands=False) for name, hint in PREPARE_FIELDS.items()}
    schema = with_slurm(own, PREPARE_FIELDS)
    schema["properties"]["slurm"] = {**with_slurm(own, PREPARE_FIELDS), "type": ["object", "null"]}
    return schema | {"type": ["object", "null"]}


def container_schema() -> Schema:
    """The image in which tasks run."""
    described = {"runtime": "what starts the image: NVIDIA's plugin of SLURM, or apptainer's command", **comments(ContainerSpec)}
    texts = Texts(descriptions=described, defaults=defaults(ContainerSpec))
    own = {name: field_schema(name, hint, texts, expands=False) for name, hint in fields_of(ContainerSpec).items()}
    return {"type": ["object", "null"], "properties": own, "required": ["image", "runtime"], "additionalProperties": False}


def notify_schema() -> Schema:
    """The command that tells of a launch."""
    hints = fields_of(NotifySpec)
    texts = Texts(descriptions=comments(NotifySpec), defaults=defaults(NotifySpec), limits=NOTIFY)
    own = {name: field_schema(name, hint, texts, expands=False) for name, hint in hints.items()}
    events = own["on"]["items"]
    own["command"] |= {"minLength": 1}
    own["on"] = {"description": own["on"]["description"], "anyOf": [events, {"type": "array", "items": events, "minItems": 1, "uniqueItems": True}]}
    return {"type": ["object", "null"], "properties": own, "required": ["command"], "additionalProperties": False}


def named_or(cluster: Schema) -> Schema:
    """`cluster:` of a grid: a name, the path of a profile, or its mapping."""
    names: Schema = {"type": "string", "anyOf": [{"enum": list(BY_NAME)}, {"description": "the path of a profile", "minLength": 1}]}
    return {"anyOf": [names, cluster, {"type": "null"}]}
