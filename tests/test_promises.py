"""Which tests show what the store promises: against the mistakes of its predecessors, and against bad input and faults.

A line names what is promised, and the tests that fail when it is broken. A test that is renamed has to be renamed here.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

MISTAKES: Mapping[str, tuple[str, ...]] = {
    "1 a tombstone that arrives before its artifact is a no-op here, a deletion there": (
        "store/test_fold_visibility.py::test_a_tombstone_that_comes_before_the_artifact",
        "federation/test_convergence.py::test_two_records_suffice_against_the_literal_reading",
    ),
    "2 two domains tie in an order by number and id": (
        "store/test_fold_laws.py::test_the_merge_order_is_total",
        "federation/test_convergence.py::test_a_wrong_reading_is_found_out",
    ),
    "3 a cursor at the highest number seen: a lost batch is lost for ever": (
        "federation/test_convergence.py::test_a_total_order_agrees_while_nothing_is_lost",
        "federation/test_convergence.py::test_real_stores_agree_after_any_plan",
    ),
    "4 records beyond the target snapshot are skipped while the cursor advances": (
        "federation/test_replay.py::test_records_beyond_the_target_wait",
    ),
    "5 one cursor per peer: relays skip or repeat": (
        "federation/test_three_sites.py::test_cut_off_and_healed",
        "cli/test_peer_commands.py::test_a_third_site_relays_what_it_holds",
    ),
    "6 checksums between peers are optional": (
        "federation/test_hostile_peer.py::test_a_flipped_bit_on_the_way",
        "federation/test_push.py::test_a_flipped_bit_of_a_parcel",
    ),
    "7 the chain does not cover the domain: a log replays as another's": (
        "federation/test_replay.py::test_a_first_record_of_another_domain_is_refused",
        "store/test_store_tamper.py::test_a_journal_under_another_key_is_another",
    ),
    "8 inputs are signed sorted and once": (
        "codec/test_receipts.py::test_order_and_multiplicity_of_inputs_are_in_the_key",
        "programs/test_execution.py::test_inputs_in_another_order_are_another_computation",
    ),
    "9 whether a run was made is decided by a hash that holds the wall clock": (
        "programs/test_runs.py::test_an_accepted_result_is_reused",
        "programs/test_other_hosts.py::test_receipts_of_equal_runs_differ_in_their_times_alone",
    ),
    "10 results that differ are settled by time, or by nobody": (
        "store/test_fold_receipts.py::test_another_list_of_outputs_is_a_contradiction",
        "federation/test_conflicts.py::test_two_results_are_settled_by_a_verdict",
    ),
    "11 a failure for lack of memory is stored as a result": (
        "programs/test_execution.py::test_a_budget_leaves_the_result_or_nothing",
        "programs/test_runs.py::test_what_cannot_be_run_here_leaves_nothing",
    ),
    "12 names of snapshots depend on the file system": (
        "codec/test_store_forms.py::test_the_worked_history",
        "store/test_store_artifacts.py::test_a_file_and_memory_are_one_store",
    ),
    "13 two byte orders: two encoders for one thing": (
        "codec/test_store_forms.py::test_golden_bytes_are_read_and_written_again",
        "codec/test_program_forms.py::test_golden_bytes_are_read_and_written_again",
    ),
    "14 anybody's tombstone hides anybody's artifact": (
        "store/test_fold_visibility.py::test_nobody_hides_what_another_domain_shows",
        "federation/test_hostile_wire.py::test_a_stranger_hides_nothing",
    ),
    "15 edges collapse by their ends and type; the payload is lost": (
        "store/test_fold_names.py::test_edges_of_a_slot_are_all_kept_in_merge_order",
    ),
    "16 the order of results depends on shards": (
        "store/test_shards.py::test_no_sequence_of_maps_changes_an_answer",
        "store/test_store_determinism.py::test_a_history_is_the_same_on_every_host",
    ),
    "17 an unknown kind of record breaks an old node": (
        "store/test_fold_visibility.py::test_unknown_and_timed_kinds_are_counted_and_skipped",
        "codec/test_store_forms.py::test_other_kinds_say_nothing_here",
    ),
    "18 artifact bytes are in the chain: to erase one breaks all that follow": (
        "store/test_collection.py::test_what_is_erased_is_gone_at_once",
        "store/test_fsck.py::test_bytes_that_are_hidden_or_erased_are_not_missing",
    ),
    "19 a restored backup uses its numbers again, and nobody notices": (
        "federation/test_pull_machine.py::test_the_own_lost_tail_comes_first",
        "federation/test_forks.py::test_a_site_that_meets_its_double",
        "cli/test_trust_commands.py::test_a_restored_backup_gets_its_tail_back",
    ),
    "20 no later put repairs a damaged object of the right name": (
        "store/test_store_artifacts.py::test_what_is_damaged_is_not_given_and_the_next_put_mends_it",
        "store/test_fsck.py::test_what_nobody_can_mend_is_put_aside",
    ),
    "21 parents become visible before their children": (
        "programs/test_runs.py::test_children_come_before_parents",
        "federation/test_two_processes.py::test_killed_at_every_step_of_a_pull",
    ),
    "22 a collection scans everything and cannot stop": (
        "store/test_collection.py::test_its_work_does_not_grow_with_the_store",
        "store/test_collection.py::test_a_budget_is_kept_and_the_next_collection_goes_on",
    ),
    "23 a cache says success while outputs are missing": (
        "store/test_fold_receipts.py::test_what_was_accepted_is_a_claim_again_when_it_is_hidden",
        "programs/test_runs.py::test_what_is_hidden_or_lost_is_made_again",
    ),
    "24 fsync comes after the acknowledgement": (
        "store/test_store_files.py::test_every_commit_is_fsynced",
        "store/test_store_artifacts.py::test_a_kill_at_any_stage_leaves_an_artifact_whole_or_absent",
    ),
    "25 a history has a hard limit": ("store/test_store_audit.py::test_a_history_has_no_limit",),
    "26 names are paths, lengths allocations, compressed sizes truth": (
        "codec/test_store_rules.py::test_a_text_that_is_no_reference_is_refused",
        "codec/test_program_forms.py::test_a_count_is_compared_with_the_bytes_before_anything_is_made",
        "federation/test_encoding.py::test_every_lie_is_refused_in_bounded_memory",
    ),
}

FAULTS: Mapping[str, tuple[str, ...]] = {
    "SIGKILL at any statement, rename, fsync or acknowledgement": (
        "store/test_store_artifacts.py::test_a_kill_at_any_stage_leaves_an_artifact_whole_or_absent",
        "store/test_store_artifacts.py::test_a_kill_at_any_statement_leaves_whole_transactions",
        "store/test_collection.py::test_a_crash_anywhere_is_gone_on_from",
        "store/test_fsck.py::test_what_nothing_names_is_removed",
    ),
    "a torn or flipped page, block, record": (
        "store/test_store_tamper.py::test_every_bit_of_a_record_is_covered",
        "store/test_store_bits.py::test_every_bit_of_every_value_is_covered",
        "store/test_store_bits.py::test_every_bit_of_a_block_is_covered",
        "store/test_fsck.py::test_damaged_blocks_are_fetched",
        "cli/test_store_commands.py::test_nothing_of_a_damaged_artifact_reaches_a_pipe",
    ),
    "disk full, EIO, EMFILE": (
        "store/test_store_faults.py::test_a_full_disk_rolls_back_and_the_store_stays_usable",
        "store/test_store_artifacts.py::test_a_disk_that_fails_under_a_block",
        "store/test_store_artifacts.py::test_a_disk_that_is_full_within_a_transaction",
    ),
    "fsync fails": (
        "store/test_store_faults.py::test_errors_at_commit",
        "store/test_store_faults.py::test_a_write_error_ends_the_handle_and_loses_nothing",
    ),
    "the clock jumps": (
        "store/test_store_determinism.py::test_a_history_is_the_same_on_every_host",
        "programs/test_runs.py::test_times_are_those_of_the_clock_that_is_given",
    ),
    "a second writer, a medium that is read-only, a newer format": (
        "store/test_store_files.py::test_a_second_writer_is_told_the_pid",
        "store/test_store_files.py::test_reading_in_a_directory_that_cannot_be_written",
        "store/test_store_files.py::test_what_cannot_be_opened_is_the_operators",
        "store/test_store_artifacts.py::test_a_journal_of_format_1_is_copied_into_a_store",
    ),
    "a store used after fork()": ("store/test_store_artifacts.py::test_a_child_is_refused",),
    "two copies of one store are written": (
        "cli/test_peer_commands.py::test_two_copies_of_one_store_are_a_fork",
        "cli/test_peer_commands.py::test_a_store_that_finds_its_own_copy_says_so",
    ),
    "a reference with dots, NUL, 64 KiB, hash id 0, a short digest": (
        "codec/test_store_rules.py::test_a_text_that_is_no_reference_is_refused",
        "codec/test_store_rules.py::test_a_text_of_64_kib_is_not_even_looked_at",
        "codec/test_store_rules.py::test_no_other_bytes_are_a_reference",
        "cli/test_store_commands.py::test_what_is_no_reference_is_refused_before_it_is_looked_up",
        "federation/test_peer_handler.py::test_requests_that_are_malformed",
    ),
    "sizes that lie, trailing bytes, depth, duplicate keys, long integers": (
        "codec/test_store_rules.py::test_an_artifact_that_lies_about_its_size_is_refused",
        "codec/test_store_rules.py::test_batches_are_refused",
        "codec/test_canonical.py::test_depth_is_bounded_in_both_directions",
        "codec/test_canonical.py::test_other_forms_are_refused",
        "federation/test_hostile_peer.py::test_an_artifact_of_2_to_the_63_bytes_is_not_waited_for",
    ),
    "a zstd bomb, an endless stream, a slow client": (
        "federation/test_encoding.py::test_every_lie_is_refused_in_bounded_memory",
        "federation/test_hostile_peer.py::test_an_endless_stream_is_cut_at_the_size_that_was_declared",
        "federation/test_peer_http.py::test_a_client_that_never_ends_its_body",
        "federation/test_peer_http.py::test_a_server_that_answers_byte_by_byte",
    ),
    "gaps, numbers that go back, cursors beyond the head, an old head": (
        "federation/test_convergence.py::test_real_stores_agree_after_any_plan",
        "federation/test_pull_machine.py::test_an_origin_that_shows_less_than_it_signed_is_noted",
    ),
    "a record under another domain, or a key that is wrong, withdrawn or not allowed": (
        "federation/test_hostile_peer.py::test_a_lie_is_refused_and_the_truth_taken_afterwards",
        "codec/test_heads.py::test_a_withdrawn_key_signs_no_more",
    ),
    "a million domains": ("federation/test_hostile_peer.py::test_a_million_domains",),
    "a tombstone for a foreign domain without the role": (
        "store/test_fold_visibility.py::test_without_the_role_a_tombstone_is_recorded_without_effect",
        "cli/test_store_commands.py::test_the_log_marks_what_has_no_effect",
    ),
    "a receipt with missing outputs, a wrong key, executors out of order, an unknown TLV": (
        "store/test_fold_receipts.py::test_a_receipt_is_a_claim_until_its_outputs_are_visible",
        "store/test_store_audit.py::test_a_receipt_under_another_computation",
        "codec/test_receipts.py::test_what_no_receipt_says_is_not_written",
        "codec/test_receipts.py::test_each_tlv_has_its_form",
    ),
    "a cyclic graph, a bomb of nodes, a slice that overflows, concat that doubles": (
        "codec/test_programs.py::test_what_no_program_has_is_refused",
        "codec/test_programs.py::test_lengths_are_checked_before_memory_is_taken",
        "programs/test_execution.py::test_a_doubling_graph_fails_at_its_sum",
        "programs/test_execution.py::test_a_slice_is_not_clipped",
    ),
    "a host operation that raises, or differs when it is executed again": (
        "programs/test_execution.py::test_a_bug_in_a_host_operation_leaves_no_result",
        "programs/test_verification.py::test_a_wrong_receipt_is_different_and_its_executor_named",
    ),
    "a redirect": ("federation/test_peer_http.py::test_answers_that_are_none",),
}


@cache
def functions(file: str) -> frozenset[str]:
    """The functions of a file of tests."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("tests", [*MISTAKES.values(), *FAULTS.values()], ids=[*MISTAKES, *FAULTS])
def test_each_promise_has_its_tests(tests):
    """They are where the table says."""
    for test in tests:
        file, _, name = test.partition("::")
        assert name in functions(file), test


def test_no_mistake_is_left_out():
    """They are numbered from 1 to 26."""
    assert [int(line.split()[0]) for line in MISTAKES] == [*range(1, 27)]
