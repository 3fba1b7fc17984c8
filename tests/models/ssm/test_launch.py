"""Sizes of the Triton kernels' launches."""

from models.ssm.launch import CHUNK, conv_grid, scan_shape


def test_a_program_has_32_channels_of_a_group_of_a_sample_of_a_side() -> None:
    shape = scan_shape((3, 384, 197), (3, 1, 16, 197), sides=2)
    assert (shape.blocks, shape.programs, shape.chunks, shape.padded, shape.warps) == (12, 2 * 3 * 12, 7, 16, 1)
    assert shape.kept_elements() == shape.programs * 6 * 16 * 32
    assert scan_shape((1, 90, CHUNK), (1, 2, 5, CHUNK), sides=1).programs == 2 * 2
    assert scan_shape((1, 90, CHUNK), (1, 2, 5, CHUNK), sides=1).kept_elements() == 0


def test_states_are_padded_to_a_power_of_two_and_spread_over_warps() -> None:
    shapes = [scan_shape((1, 4, 5), (1, 1, states, 5), sides=1) for states in (1, 3, 8, 19, 64, 256)]
    assert [(shape.padded, shape.warps) for shape in shapes] == [(1, 1), (4, 1), (8, 1), (32, 4), (64, 8), (256, 16)]


def test_a_convolution_has_a_program_for_each_tile() -> None:
    assert conv_grid((3, 65, 33)) == (3 * 2 * 2,)
