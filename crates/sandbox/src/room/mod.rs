//! What every kind of room needs of its host, whatever its walls are: a place on record, a hold on its first process, limits of
//! the host's kernel, ids. It knows no backend.
//!
//! Whose a room is, from one server to the next, is in [`place`] and [`record`]; what it may use in [`cgroup`]; whose ids a
//! session has in [`ids`]; how it ends in [`ending`] and [`guard`]; how it is tried in [`trial`].

pub(crate) mod cgroup;
pub(crate) mod data;
pub(crate) mod ending;
pub(crate) mod ground;
pub(crate) mod guard;
pub(crate) mod ids;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod removal;
pub(crate) mod root;
pub(crate) mod trial;
