import subprocess
import sys

import pytest
import torch
from torch import nn

from models.pruning.scope import DEFAULT_GROUPS, GROUPS, check_groups, group_of, prunable_names

VIM = {
    "cls_token": (3, "embeddings"),
    "pos_embed": (3, "embeddings"),
    "patch_embed.proj.weight": (4, "patch_embed"),
    "patch_embed.proj.bias": (1, "biases"),
    "head.weight": (2, "head"),
    "head.bias": (1, "biases"),
    "norm_f.weight": (1, "norms"),
    "layers.0.norm.weight": (1, "norms"),
    "layers.0.mixer.A_log": (2, "A_log"),
    "layers.0.mixer.A_b_log": (2, "A_log"),
    "layers.0.mixer.D": (1, "D"),
    "layers.0.mixer.D_b": (1, "D"),
    "layers.0.mixer.A_log_3": (2, "A_log"),
    "layers.0.mixer.D_3": (1, "D"),
    "layers.0.mixer.conv1d_3.weight": (3, "conv1d"),
    "layers.0.mixer.x_proj_3.weight": (2, "x_proj"),
    "layers.0.mixer.dt_proj_3.weight": (2, "dt_proj"),
    "layers.0.mixer.in_proj.weight": (2, "in_proj"),
    "layers.0.mixer.conv1d.weight": (3, "conv1d"),
    "layers.0.mixer.conv1d_b.weight": (3, "conv1d"),
    "layers.0.mixer.conv1d_b.bias": (1, "biases"),
    "layers.0.mixer.x_proj_b.weight": (2, "x_proj"),
    "layers.0.mixer.dt_proj_b.weight": (2, "dt_proj"),
    "layers.0.mixer.dt_proj.bias": (1, "biases"),
    "layers.0.mixer.out_proj.weight": (2, "out_proj"),
    "layers.0.se.reduce.weight": (2, "se"),
}
MAMBAVISION = {
    "patch_embed.conv_down.0.weight": (4, "patch_embed"),
    "patch_embed.conv_down.1.weight": (1, "norms"),
    "levels.0.blocks.0.conv1.weight": (4, "conv"),
    "levels.0.blocks.0.norm1.weight": (1, "norms"),
    "levels.0.blocks.0.gamma": (1, "norms"),
    "levels.2.blocks.0.gamma_1": (1, "norms"),
    "levels.0.downsample.reduction.0.weight": (4, "downsample"),
    "levels.2.blocks.0.mixer.conv1d_x.weight": (3, "conv1d"),
    "levels.2.blocks.0.mixer.x_proj.weight": (2, "x_proj"),
    "levels.2.blocks.5.mixer.qkv.weight": (2, "attention"),
    "levels.2.blocks.5.mixer.qkv.bias": (1, "biases"),
    "levels.2.blocks.5.mixer.proj.weight": (2, "attention"),
    "levels.2.blocks.0.mlp.fc1.weight": (2, "mlp"),
    "norm.weight": (1, "norms"),
    "levels.0.blocks.0.branch.3.weight": (4, "conv"),
    "layers.0.mixer.conv1d.widen.weight": (2, "conv1d"),
    "pool.key.weight": (2, "attention"),
    "stem.conv1.weight": (4, "patch_embed"),
    "attention_pool.query": (3, "embeddings"),
    "attention_pool.kv.weight": (2, "attention"),
    "levels.2.blocks.0.mixer.ssm.log_dt": (1, "state"),
    "levels.2.blocks.0.mixer.ssm.C": (2, "state"),
}

VMAMBA = {
    "patch_embed.5.weight": (4, "patch_embed"),
    "patch_embed.7.weight": (1, "norms"),
    "layers.0.downsample.1.weight": (4, "downsample"),
    "layers.0.blocks.0.op.conv2d.weight": (4, "conv1d"),
    "layers.0.blocks.0.op.x_proj_weight": (3, "x_proj"),
    "layers.0.blocks.0.op.dt_projs_weight": (3, "dt_proj"),
    "layers.0.blocks.0.op.dt_projs_bias": (2, "biases"),
    "layers.0.blocks.0.op.A_logs": (2, "A_log"),
    "layers.0.blocks.0.op.Ds": (1, "D"),
    "layers.0.blocks.0.op.out_norm.weight": (1, "norms"),
    "layers.0.blocks.0.mlp.fc1.weight": (2, "mlp"),
    "layers.0.blocks.0.inverted.branch.0.weight": (4, "conv"),
    "classifier.norm.weight": (1, "norms"),
    "classifier.head.weight": (2, "head"),
}

VSSD = {
    "patch_embed.conv3.0.conv.weight": (4, "patch_embed"),
    "layers.0.blocks.0.cpe1.weight": (4, "conv"),
    "layers.0.blocks.0.attn.in_proj.weight": (2, "in_proj"),
    "layers.0.blocks.0.attn.conv2d.weight": (4, "conv1d"),
    "layers.0.blocks.0.attn.dt_bias": (1, "biases"),
    "layers.0.blocks.0.attn.A_log": (1, "A_log"),
    "layers.0.blocks.0.attn.D": (1, "D"),
    "layers.0.blocks.0.attn.norm.weight": (1, "norms"),
    "layers.0.blocks.0.attn.out_proj.weight": (2, "out_proj"),
    "layers.3.blocks.0.attn.to_qkv.weight": (2, "attention"),
    "layers.3.blocks.0.attn.to_out.weight": (2, "attention"),
    "layers.0.downsample.conv.1.conv.weight": (4, "downsample"),
}


@pytest.mark.parametrize(("name", "dimensions", "group"), [(name, *rest) for name, rest in (VIM | MAMBAVISION | VMAMBA | VSSD).items()])
def test_an_official_name_falls_into_its_group(name, dimensions, group):
    assert group_of(name, dimensions) == group


def test_a_matrix_that_no_rule_names_is_prunable_as_other():
    assert group_of("encoder.0.weight", 2) == "other" and "other" in DEFAULT_GROUPS


def test_states_biases_norms_and_embeddings_stay_dense_by_default():
    assert set(GROUPS) - set(DEFAULT_GROUPS) == {"A_log", "D", "biases", "norms", "embeddings", "state"}


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 4, 2)
        self.in_proj = nn.Linear(4, 8)
        self.A_log = nn.Parameter(torch.zeros(8, 2))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)


def test_prunable_names_come_in_the_models_order():
    assert prunable_names(Small()) == ("patch_embed.weight", "in_proj.weight", "head.weight")
    assert prunable_names(Small(), ("head", "A_log", "in_proj")) == ("A_log", "in_proj.weight", "head.weight")


def test_groups_that_the_model_lacks_are_refused_with_those_that_it_has():
    with pytest.raises(ValueError, match="no parameter in mlp, attention; it has A_log, biases, head, in_proj, norms, patch_embed"):
        prunable_names(Small(), ("mlp", "attention"))


def test_an_unknown_group_is_refused_with_the_nearest_and_all_valid_names():
    with pytest.raises(ValueError, match="unknown group 'inproj'; did you mean 'in_proj'.*patch_embed, in_proj, conv1d"):
        check_groups(("inproj",))


@pytest.mark.parametrize("groups", [(), ("head", "head")])
def test_no_group_or_a_group_twice_is_refused(groups):
    with pytest.raises(ValueError, match="at least one group, each once"):
        check_groups(groups)


@pytest.mark.parametrize("module", ["scope", "registry", "sparsity_schedule", "base"])
def test_the_login_node_needs_no_torch(module):
    code = f"import sys, models.pruning.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
