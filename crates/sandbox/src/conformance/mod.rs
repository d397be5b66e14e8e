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
    eprintln!("{} starts_and_talks_both_ways", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); life::starts_and_talks_both_ways(subject).await;
    eprintln!("{} tells_how_it_ended", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); life::tells_how_it_ended(subject).await;
    eprintln!("{} dropping_it_ends_every_process", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); life::dropping_it_ends_every_process(subject).await;
    eprintln!("{} files_outlive_the_room", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); life::files_outlive_the_room(subject).await;
    eprintln!("{} removing_removes", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); life::removing_removes(subject).await;
    eprintln!("{} many_start_at_once", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); life::many_start_at_once(subject).await;
    eprintln!("{} a_room_that_cannot_be_built_says_why", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); life::a_room_that_cannot_be_built_says_why(subject).await;
    eprintln!("{} a_room_outlives_its_server", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); succession::a_room_outlives_its_server(subject).await;
    eprintln!("{} the_later_of_two_owners_has_it", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); succession::the_later_of_two_owners_has_it(subject).await;
    eprintln!("{} nobody_waits_for_a_host_for_ever", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); succession::nobody_waits_for_a_host_for_ever(subject).await;
    eprintln!("{} a_start_replaces_what_lives", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); succession::a_start_replaces_what_lives(subject).await;
    eprintln!("{} what_is_there_can_be_listed_and_removed", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); succession::what_is_there_can_be_listed_and_removed(subject).await;
    eprintln!("{} two_rooms_share_nothing", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); walls::two_rooms_share_nothing(subject).await;
    eprintln!("{} the_host_is_out_of_reach", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); walls::the_host_is_out_of_reach(subject).await;
    eprintln!("{} the_cell_is_given_nothing_else", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); walls::the_cell_is_given_nothing_else(subject).await;
    eprintln!("{} tools_have_no_powers", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); walls::tools_have_no_powers(subject).await;
    eprintln!("{} attacks_fail", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); walls::attacks_fail(subject).await;
    eprintln!("{} system_calls_are_refused", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); walls::system_calls_are_refused(subject).await;
    eprintln!("{} another_architecture_has_no_calls", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); walls::another_architecture_has_no_calls(subject).await;
    eprintln!("{} files_move_and_devices_are_not_made", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); walls::files_move_and_devices_are_not_made(subject).await;
    eprintln!("{} ordinary_programs_work", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); walls::ordinary_programs_work(subject).await;
    eprintln!("{} a_room_is_made_of_layers", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); roots::a_room_is_made_of_layers(subject).await;
    eprintln!("{} layers_lie_over_the_hosts_root", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); roots::layers_lie_over_the_hosts_root(subject).await;
    eprintln!("{} a_root_that_cannot_be_had_says_why", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); roots::a_root_that_cannot_be_had_says_why(subject).await;
    eprintln!("{} a_closed_room_has_no_way_out", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); outlet::a_closed_room_has_no_way_out(subject).await;
    eprintln!("{} wishes_come_out_at_the_host", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); outlet::wishes_come_out_at_the_host(subject).await;
    eprintln!("{} two_rooms_ways_are_apart", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); outlet::two_rooms_ways_are_apart(subject).await;
    eprintln!("{} a_next_server_has_the_way_out", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); outlet::a_next_server_has_the_way_out(subject).await;
    eprintln!("{} a_memory_bomb_ends_in_the_room", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); limits::a_memory_bomb_ends_in_the_room(subject).await;
    eprintln!("{} a_fork_bomb_ends_in_the_room", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); limits::a_fork_bomb_ends_in_the_room(subject).await;
    eprintln!("{} a_busy_room_gets_its_part_of_the_processor", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); limits::a_busy_room_gets_its_part_of_the_processor(subject).await;
    eprintln!("{} a_disk_filler_is_noticed", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); limits::a_disk_filler_is_noticed(subject).await;
    eprintln!("{} files_are_bounded", std::process::Command::new("date").arg("+%T.%3N").output().map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()); limits::files_are_bounded(subject).await;
}
