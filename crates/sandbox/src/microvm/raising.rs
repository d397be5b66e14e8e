//! A machine comes up: on a place and a disk, in cgroups of its own, until its guest has answered.
//!
//! ```text
//!  fresh ─► template of its form ─► restore ─► Prepared
//!        └─► none, or it does not come up ─► cold boot, tried again ─► Prepare ─► Prepared
//! ```
//!
//! INVARIANT: the place has a record before the VMM is started: with cgroups and no process, which is enough to find it in them; and with
//! its process as soon as that is known. So no machine lives that no record names, whoever dies meanwhile.

use super::form::{Form, of_vmm};
use super::link::{Control, LinkDead, LinkHost, Patience};
use super::monitor::refused;
use super::vmm::{Begin, Machine, Order};
use super::{KIND, Machines, made, secrets, sockets, talk};
use crate::SandboxError;
use crate::room::cgroup::RoomCgroup;
use crate::room::ending::END_WAIT;
use crate::room::place::Place;
use crate::room::process::{self, Process};
use crate::room::record::Record;
use loopd_domain::Epoch;
use loopd_domain::environment::RoomLimits;
use loopd_domain::limits::{MACHINE_ANSWER_MS, MACHINE_BOOT_MS, MACHINE_BOOTS_MAX};
use loopd_protocol::guest::{FromGuest, GuestState, ToGuest};
use loopd_protocol::link::Token;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a machine that failed is waited for, to hear its last words.
const WORDS_WAIT: Duration = Duration::from_secs(2);
/// Characters of them that an error repeats.
const WORDS_CHARS_MAX: usize = 1_000;
/// Of these, from their beginning.
const WHY_CHARS_MAX: usize = 300;

/// Where a machine is to come up.
#[derive(Clone, Copy)]
pub(super) struct Stand<'a> {
    pub place: &'a Place,
    pub disk: &'a Path,
    /// The host user for its VMM.
    pub user: Option<u32>,
    /// Of the owner whose record it gets.
    pub epoch: Epoch,
}

/// Of a machine that waits. Below every owner's.
pub(super) const NOBODYS: Epoch = Epoch(0);

/// A machine whose guest has answered. Dropping it ends it.
pub(super) struct Raised {
    pub machine: Machine,
    pub process: Process,
    /// Of its cgroups.
    pub number: u64,
    pub state: GuestState,
    pub link: LinkHost,
    pub control: Control,
    pub doom: Doom,
}

impl Raised {
    /// Ends it, and waits until it is gone.
    pub(super) async fn finish(self) -> Result<(), SandboxError> {
        let Raised { machine, doom, .. } = self;
        drop(doom);
        let ended = tokio::time::timeout(END_WAIT, process::ended(&machine.process)).await;
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => Err(talk::failed("being ended", &fault.to_string())),
            Err(_) => Err(talk::failed("being ended", "it was killed and lives")),
        }
    }
}

/// Ends a machine when it is dropped, and clears up after it.
pub(super) struct Doom {
    pidfd: Arc<OwnedFd>,
    /// `None` when it was lifted.
    cgroup: Option<RoomCgroup>,
    is_lifted: bool,
}

impl Doom {
    pub(super) fn has_struck(&self) -> bool {
        // What cannot be asked is not given to a session.
        process::has_ended(&self.pidfd).unwrap_or(true)
    }

    /// Of a machine that goes on when this is dropped.
    pub(super) fn spared(cgroup: RoomCgroup, machine: &Machine) -> Self {
        Doom { pidfd: Arc::clone(&machine.process), cgroup: Some(cgroup), is_lifted: true }
    }

    pub(super) fn cgroups(&self) -> &[PathBuf] {
        self.cgroup.as_ref().map_or(&[], RoomCgroup::directories)
    }

    /// From here on the machine is somebody else's to end.
    pub(super) fn lift(mut self) -> RoomCgroup {
        self.cgroup.take().unwrap_or_default()
    }
}

impl Drop for Doom {
    fn drop(&mut self) {
        let Some(cgroup) = self.cgroup.take().filter(|_| !self.is_lifted) else { return };
        process::kill(&self.pidfd);
        let pidfd = Arc::clone(&self.pidfd);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(fault) = process::ended(&pidfd).await {
                    tracing::warn!(%fault, "a machine is out of sight");
                }
                tokio::task::spawn_blocking(move || cgroup.remove());
            });
        }
    }
}

impl Machines {
    /// A machine that waits for its session: a copy, or one that was booted for it.
    pub(super) async fn fresh(
        self: &Arc<Self>,
        form: &Form,
        stand: Stand<'_>,
        limits: &RoomLimits,
    ) -> Result<Raised, SandboxError> {
        match self.template(form).await {
            Ok(template) => {
                let begin = Begin::Template(template);
                for _ in 0..2 {
                    match self.raise(form, stand, &begin, &Token::UNBOUND, limits).await {
                        Ok(raised) if raised.state == GuestState::Prepared => return Ok(raised),
                        Ok(raised) => {
                            tracing::warn!(state = ?raised.state, "a copy of a machine is not as it should be")
                        }
                        Err(fault) if fault.is_permanent() => return Err(fault),
                        Err(fault) => tracing::warn!(%fault, "a copy of a machine does not come up"),
                    }
                }
                self.templates.discard(&form.fingerprint);
            }
            Err(fault) if fault.is_permanent() => return Err(fault),
            Err(fault) => tracing::warn!(%fault, "a machine is booted, as there is no template to copy"),
        }
        self.boot(form, stand, limits).await
    }

    /// A machine that begins with its kernel, and is prepared.
    pub(super) async fn boot(
        self: &Arc<Self>,
        form: &Form,
        stand: Stand<'_>,
        limits: &RoomLimits,
    ) -> Result<Raised, SandboxError> {
        let mut attempt = 1;
        loop {
            let booted = match self.raise(form, stand, &Begin::Boot, &Token::UNBOUND, limits).await {
                Ok(mut raised) => self.prepare(form, &mut raised).await.map(|()| raised),
                Err(fault) => Err(fault),
            };
            match booted {
                // In software some never come up, and the next one does.
                Err(fault) if !fault.is_permanent() && attempt < MACHINE_BOOTS_MAX => {
                    tracing::warn!(%fault, attempt, "a machine is booted again");
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn prepare(&self, form: &Form, raised: &mut Raised) -> Result<(), SandboxError> {
        let order = ToGuest::Prepare { authority: self.authority.clone(), root: form.root };
        let is_prepared = |said: &FromGuest| matches!(said, FromGuest::Prepared).then_some(());
        let prepared = talk::ask(&mut raised.control, order, "being prepared", is_prepared).await;
        match prepared {
            Ok(()) => {
                raised.state = GuestState::Prepared;
                Ok(())
            }
            Err(fault) => Err(with_words(fault, &raised.machine).await),
        }
    }

    /// Starts a machine and waits until its guest says what it is.
    pub(super) async fn raise(
        self: &Arc<Self>,
        form: &Form,
        stand: Stand<'_>,
        begin: &Begin,
        token: &Token,
        limits: &RoomLimits,
    ) -> Result<Raised, SandboxError> {
        let failed = |fault: io::Error| SandboxError::Machine(format!("being started: {fault}"));
        let number = self.number();
        // A machine that is to have little of the processor comes up with all of its processors.
        let cpu_millis = limits.cpu_millis.max(u64::from(form.shape.cpus) * 1_000);
        let limits = of_vmm(&form.shape, &RoomLimits { cpu_millis, ..*limits });
        let machines = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || machines.cgroups.room(number, &limits)).await;
        let (cgroup, procs) = made.map_err(io::Error::other).flatten().map_err(failed)?;
        let mut record = Record {
            kind: KIND,
            epoch: stand.epoch,
            boot: self.boot.clone(),
            process: Process::UNKNOWN,
            cgroups: cgroup.directories().to_vec(),
        };
        made::note(stand.place, &form.shape).map_err(failed)?;
        stand.place.write(&record).map_err(failed)?;
        let sockets = sockets::listen(stand.place).map_err(failed)?;
        let order = Order {
            shape: Arc::clone(&form.shape),
            disk: stand.disk.to_owned(),
            link: sockets.link,
            control: sockets.control,
            user: stand.user,
            cgroups: procs,
        };
        let machine = form.vmm.start(order, begin).await.map_err(refused)?;
        let doom = Doom { pidfd: Arc::clone(&machine.process), cgroup: Some(cgroup), is_lifted: false };
        let Some(process) = Process::with(machine.pid) else {
            return Err(with_words(talk::failed("being started", "it has ended"), &machine).await);
        };
        record.process = process;
        stand.place.write(&record).map_err(failed)?;
        fail::fail_point!("sandbox::machine_recorded");
        let answer = Duration::from_millis(match begin {
            Begin::Boot => MACHINE_BOOT_MS,
            Begin::Template(_) | Begin::Suspended(_) => MACHINE_ANSWER_MS,
        });
        match self.connect(stand.place, token, answer).await {
            Ok((link, control, state)) => Ok(Raised { machine, process, number, state, link, control, doom }),
            Err(fault) => {
                drop(doom);
                Err(with_words(fault, &machine).await)
            }
        }
    }

    /// Begins afresh with the guest of the machine in `place`.
    pub(super) async fn connect(
        &self,
        place: &Place,
        token: &Token,
        answer: Duration,
    ) -> Result<(LinkHost, Control, GuestState), SandboxError> {
        const DOING: &str = "coming up";
        let socket = sockets::link(place).map_err(|fault| talk::failed(DOING, &fault.to_string()))?;
        let patience = Patience { answer, ..Patience::default() };
        let connected = LinkHost::connect(socket, token, secrets::nonce()?, patience).await;
        let (link, mut control) = connected.map_err(|dead: LinkDead| talk::failed(DOING, &dead.to_string()))?;
        let state = talk::ready(&mut control).await?;
        Ok((link, control, state))
    }
}

/// With what the machine said last, if it has ended.
pub(super) async fn with_words(fault: SandboxError, machine: &Machine) -> SandboxError {
    let mut ended = machine.ended.clone();
    let words = match tokio::time::timeout(WORDS_WAIT, ended.wait_for(Option::is_some)).await {
        Ok(Ok(words)) => words.clone().unwrap_or_default(),
        Ok(Err(_)) | Err(_) => String::new(),
    };
    match (fault, last(&words)) {
        (SandboxError::Machine(fault), words) if !words.is_empty() => {
            SandboxError::Machine(format!("{fault}; it last said: {words}"))
        }
        (other, _) => other,
    }
}

/// The beginning, which says why, and the end of what a machine said.
pub(super) fn last(words: &str) -> String {
    let words: Vec<char> = words.trim().chars().collect();
    match words.len().checked_sub(WORDS_CHARS_MAX) {
        None | Some(0) => words.into_iter().collect(),
        Some(_) => {
            let (why, end) = (&words[..WHY_CHARS_MAX], &words[words.len() - (WORDS_CHARS_MAX - WHY_CHARS_MAX)..]);
            why.iter().chain(&[' ', '…', ' ']).chain(end).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_words_the_first_and_the_last_are_told() {
        assert_eq!(last(" few words\n"), "few words");
        let many = format!("why; {} end", "é".repeat(3 * WORDS_CHARS_MAX));
        let told = last(&many);
        assert!(told.starts_with("why; é") && told.ends_with("é end"), "{told}");
        assert!(told.chars().count() <= WORDS_CHARS_MAX + 3);
    }
}
