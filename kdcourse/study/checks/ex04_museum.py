"""Checks of the bug museum, in the order of its notebook.

Each but the last asks for a property test of a loss; ``property_tests`` tells how such
an answer is tested.
"""

from . import museum_directions, museum_gradients, museum_values

ignores_impossible_tokens = museum_values.ignores_impossible_tokens
ignores_repetition = museum_values.ignores_repetition
leaves_pads_alone = museum_gradients.leaves_pads_alone
is_a_divergence = museum_directions.is_a_divergence
ignores_shifts = museum_values.ignores_shifts
adds_up = museum_values.adds_up
learns_to_stop = museum_gradients.learns_to_stop
keeps_its_size = museum_gradients.keeps_its_size
stays_in_place = museum_gradients.stays_in_place
knows_its_ends = museum_directions.knows_its_ends
false_report = museum_directions.false_report
