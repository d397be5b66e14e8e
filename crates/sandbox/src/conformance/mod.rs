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
    if from("starts_and_talks_both_ways") {
        life::starts_and_talks_both_ways(subject).await;
    }
    if from("tells_how_it_ended") {
        life::tells_how_it_ended(subject).await;
    }
    if from("dropping_it_ends_every_process") {
        life::dropping_it_ends_every_process(subject).await;
    }
    if from("files_outlive_the_room") {
        life::files_outlive_the_room(subject).await;
    }
    if from("removing_removes") {
        life::removing_removes(subject).await;
    }
    if from("many_start_at_once") {
        life::many_start_at_once(subject).await;
    }
    if from("a_room_that_cannot_be_built_says_why") {
        life::a_room_that_cannot_be_built_says_why(subject).await;
    }
    if from("a_room_outlives_its_server") {
        succession::a_room_outlives_its_server(subject).await;
    }
    if from("the_later_of_two_owners_has_it") {
        succession::the_later_of_two_owners_has_it(subject).await;
    }
    if from("nobody_waits_for_a_host_for_ever") {
        succession::nobody_waits_for_a_host_for_ever(subject).await;
    }
    if from("a_start_replaces_what_lives") {
        succession::a_start_replaces_what_lives(subject).await;
    }
    if from("what_is_there_can_be_listed_and_removed") {
        succession::what_is_there_can_be_listed_and_removed(subject).await;
    }
    if from("two_rooms_share_nothing") {
        walls::two_rooms_share_nothing(subject).await;
    }
    if from("the_host_is_out_of_reach") {
        walls::the_host_is_out_of_reach(subject).await;
    }
    if from("the_cell_is_given_nothing_else") {
        walls::the_cell_is_given_nothing_else(subject).await;
    }
    if from("tools_have_no_powers") {
        walls::tools_have_no_powers(subject).await;
    }
    if from("attacks_fail") {
        walls::attacks_fail(subject).await;
    }
    if from("system_calls_are_refused") {
        walls::system_calls_are_refused(subject).await;
    }
    if from("another_architecture_has_no_calls") {
        walls::another_architecture_has_no_calls(subject).await;
    }
    if from("files_move_and_devices_are_not_made") {
        walls::files_move_and_devices_are_not_made(subject).await;
    }
    if from("ordinary_programs_work") {
        walls::ordinary_programs_work(subject).await;
    }
    if from("a_room_is_made_of_layers") {
        roots::a_room_is_made_of_layers(subject).await;
    }
    if from("layers_lie_over_the_hosts_root") {
        roots::layers_lie_over_the_hosts_root(subject).await;
    }
    if from("a_root_that_cannot_be_had_says_why") {
        roots::a_root_that_cannot_be_had_says_why(subject).await;
    }
    if from("a_closed_room_has_no_way_out") {
        outlet::a_closed_room_has_no_way_out(subject).await;
    }
    if from("wishes_come_out_at_the_host") {
        outlet::wishes_come_out_at_the_host(subject).await;
    }
    if from("two_rooms_ways_are_apart") {
        outlet::two_rooms_ways_are_apart(subject).await;
    }
    if from("a_next_server_has_the_way_out") {
        outlet::a_next_server_has_the_way_out(subject).await;
    }
    if from("a_memory_bomb_ends_in_the_room") {
        limits::a_memory_bomb_ends_in_the_room(subject).await;
    }
    if from("a_fork_bomb_ends_in_the_room") {
        limits::a_fork_bomb_ends_in_the_room(subject).await;
    }
    if from("a_busy_room_gets_its_part_of_the_processor") {
        limits::a_busy_room_gets_its_part_of_the_processor(subject).await;
    }
    if from("a_disk_filler_is_noticed") {
        limits::a_disk_filler_is_noticed(subject).await;
    }
    if from("files_are_bounded") {
        limits::files_are_bounded(subject).await;
    }
}

fn from(rule: &str) -> bool {
    use std::sync::atomic::{AtomicBool, Ordering};
    static ON: AtomicBool = AtomicBool::new(false);
    let wanted = std::env::var("FROM").unwrap_or_default();
    if wanted.is_empty() || wanted == rule {
        ON.store(true, Ordering::Relaxed);
    }
    let on = ON.load(Ordering::Relaxed);
    eprintln!(
        "{} {rule} {on}",
        std::process::Command::new("date")
            .arg("+%T.%3N")
            .output()
            .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
            .unwrap_or_default()
    );
    on
}
