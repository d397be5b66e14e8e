//! What every kind of room must do. A backend's tests build a [`Subject`] with the program `loopd-test-cell` in the cell's
//! place and call [`all`]; a rule that does not hold panics and says which.

mod life;
mod limits;
mod outlet;
mod roots;
mod subject;
mod succession;
mod walls;

pub use subject::{Answer, Make, ORPHAN_SECONDS, Subject, Visitor};

/// Runs every rule, one after the other.
pub async fn all(subject: &Subject) {
    life::starts_and_talks_both_ways(subject).await;
    life::tells_how_it_ended(subject).await;
    life::dropping_it_ends_every_process(subject).await;
    life::files_outlive_the_room(subject).await;
    life::removing_removes(subject).await;
    life::many_start_at_once(subject).await;
    life::a_room_that_cannot_be_built_says_why(subject).await;
    succession::a_room_outlives_its_server(subject).await;
    succession::the_later_of_two_owners_has_it(subject).await;
    succession::nobody_waits_for_a_host_for_ever(subject).await;
    succession::a_start_replaces_what_lives(subject).await;
    succession::what_is_there_can_be_listed_and_removed(subject).await;
    walls::two_rooms_share_nothing(subject).await;
    walls::the_host_is_out_of_reach(subject).await;
    walls::the_cell_is_given_nothing_else(subject).await;
    walls::tools_have_no_powers(subject).await;
    walls::attacks_fail(subject).await;
    walls::system_calls_are_refused(subject).await;
    walls::another_architecture_has_no_calls(subject).await;
    walls::files_move_and_devices_are_not_made(subject).await;
    walls::ordinary_programs_work(subject).await;
    roots::a_room_is_made_of_layers(subject).await;
    roots::layers_lie_over_the_hosts_root(subject).await;
    roots::a_root_that_cannot_be_had_says_why(subject).await;
    outlet::a_closed_room_has_no_way_out(subject).await;
    outlet::wishes_come_out_at_the_host(subject).await;
    outlet::two_rooms_ways_are_apart(subject).await;
    outlet::a_next_server_has_the_way_out(subject).await;
    limits::a_memory_bomb_ends_in_the_room(subject).await;
    limits::a_fork_bomb_ends_in_the_room(subject).await;
    limits::a_busy_room_gets_its_part_of_the_processor(subject).await;
    limits::a_disk_filler_is_noticed(subject).await;
    limits::files_are_bounded(subject).await;
}
