//! The command line: what may be asked, in clap's words. Nothing is done here.

use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The agent loop as a service.
///
/// One call runs the whole reason-act loop of an agent, and every session runs it in a sandbox of its own.
#[derive(Debug, Parser)]
#[command(name = "loopd", version, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub place: Place,
    #[command(subcommand)]
    pub command: Command,
}

/// Where sessions live, for every command.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Data directory of the loopd that runs inside this command [default: ./.loopd, or LOOPD_DATA]
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Configuration file [default: ./loopd.toml where there is one]
    #[arg(long, global = true, value_name = "FILE", env = "LOOPD_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one turn of an agent and watch it
    Invoke(Box<InvokeArgs>),
    /// Serve the HTTP interface
    Serve(ServeArgs),
    /// List, show, follow and delete sessions
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Show what a session did: turns, steps, model calls and tool calls, with durations, tokens and cost
    Trace(TraceArgs),
    /// Prove that a session's journal is what was written; exit code 1 when it is not
    Verify(ReportArgs),
    /// Run a session's loop again over what its journal recorded; exit code 1 when it would have done something else
    Replay(ReportArgs),
    /// Take the content of an event out of a session's history, for good
    Redact(RedactArgs),
    /// List, refresh and remove images that rooms are made of
    #[command(subcommand)]
    Images(ImagesCommand),
    /// Build what rooms with a kernel of their own (`isolation: microvm`) are made of
    #[command(subcommand)]
    Image(ImageCommand),
    /// Make, list and revoke API keys; rotate the master key of the vaults
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Make, change and list workspaces: walls between tenants
    #[command(subcommand)]
    Workspaces(WorkspacesCommand),
    /// Show who did what to which resource, newest first
    Audit(AuditArgs),
    /// Try what works on this machine and say what to do about what does not
    Doctor(DoctorArgs),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct InvokeArgs {
    /// What to say to the agent; more than one word may be quoted or not
    #[arg(value_name = "MESSAGE")]
    pub message: Vec<String>,
    /// Model of a new session, as `provider/name`: builtin/shell needs no key; anthropic/…, openai/…, ollama/…
    /// [default: LOOPD_MODEL]
    #[arg(long, conflicts_with = "session")]
    pub model: Option<String>,
    /// System prompt of a new session
    #[arg(long, conflicts_with_all = ["system_file", "session"], value_name = "TEXT")]
    pub system: Option<String>,
    /// Read the system prompt from a file
    #[arg(long, conflicts_with = "session", value_name = "FILE")]
    pub system_file: Option<PathBuf>,
    /// A built-in tool to allow; may be given again, `none` for none [default: all of them]
    #[arg(long = "tool", conflicts_with = "session", value_name = "NAME")]
    pub tools: Vec<String>,
    /// Go on with this session, which has its model, system prompt and tools already
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
    /// Walls around the room of a new session [default: namespaces]
    #[arg(long, value_name = "KIND", value_parser = ISOLATIONS, conflicts_with = "session")]
    pub isolation: Option<String>,
    /// Read the message, or more of it, from standard input
    #[arg(long)]
    pub stdin: bool,
    /// End the turn after this many steps (a step is one model call and its tool calls)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_steps: Option<u32>,
    /// The final answer must be JSON of the JSON Schema in this file
    #[arg(long, value_name = "FILE")]
    pub output_schema: Option<PathBuf>,
    /// Print one JSON event per line, then the result as the last line
    #[arg(long)]
    pub json: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    the model ended the turn
  1    the command failed; standard error says why
  2    the command line was not understood
  3    the turn waits for you: a custom tool's result, or an approval
  4    a limit or a budget ended the turn
  5    the model could not be reached as often as it may be tried
  6    the model refused
  7    the session has ended for good
  8    detached (Ctrl-C twice)
  9    another loopd has taken the data directory over
  130  interrupted (Ctrl-C)

Ctrl-C interrupts the turn; the session stays and can be continued with --session. A second Ctrl-C detaches: with a server
(LOOPD_URL) the turn goes on there; without one it rests and goes on when loopd is next started on the same data directory.";

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on; port 0 takes a free one [default: 127.0.0.1:7007]
    #[arg(long, value_name = "ADDRESS:PORT", env = "LOOPD_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Ask the server that uses the data directory now to stop, and go on where it stood
    #[arg(long)]
    pub take_over: bool,
}

#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List sessions, newest first
    List {
        /// At most this many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Only sessions of this status: idle, running, rescheduling, terminated; may be given again
        #[arg(long, value_name = "STATUS")]
        status: Vec<String>,
        /// Also archived ones
        #[arg(long)]
        archived: bool,
        /// Print the sessions as JSON, one per line
        #[arg(long)]
        json: bool,
    },
    /// Show a session and its whole conversation
    Show {
        id: String,
        /// Print the session as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the latest events of a session, then what comes while it runs
    Tail {
        id: String,
        /// How many of the events that are there to show first
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=1000))]
        lines: u32,
        /// Stay when the session is idle
        #[arg(short, long)]
        follow: bool,
        /// Print one JSON event per line
        #[arg(long)]
        json: bool,
    },
    /// End the turn that a session runs, or waits in
    Interrupt { id: String },
    /// Make a session of another one's past, with a copy of its files
    Fork {
        id: String,
        /// The last event to copy, one after which the session rested [default: as far as it rests now]
        #[arg(long, value_name = "EVENT")]
        at: Option<String>,
        /// Title of the new session [default: the other one's]
        #[arg(long)]
        title: Option<String>,
        /// Copy no files
        #[arg(long)]
        no_workspace: bool,
    },
    /// Write a session, history and files, into one archive
    Export {
        id: String,
        /// The archive; one that ends in `.gz` or `.tgz` is compressed [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Make a session of an archive
    Import {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Delete sessions: history and files
    Delete {
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The session's id
    pub session: String,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RedactArgs {
    /// The session's id
    pub session: String,
    /// The event's id, as `loopd sessions tail --json` shows it
    pub event: String,
    /// Why; shown in the session's history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

#[derive(Debug, Subcommand)]
#[command(after_long_help = KEYS_HELP)]
pub enum KeysCommand {
    /// Make a key and print it, this once; from the first one on callers need a key
    Create {
        /// What people know the key by
        #[arg(long)]
        name: String,
        /// Workspace of the key, by name; made if it is not there yet [default: the caller's own]
        #[arg(long, value_name = "NAME")]
        workspace: Option<String>,
        /// What the key may do, such as `sessions:write`; may be given again [default: `*`]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// When it ends: `90d`, `12h`, or a time [default: never]
        #[arg(long, value_name = "WHEN")]
        expires: Option<String>,
        /// Print key and record as JSON
        #[arg(long)]
        json: bool,
    },
    /// List keys, newest first; never the keys themselves
    List {
        /// Another workspace than the caller's own, by name
        #[arg(long, value_name = "NAME")]
        workspace: Option<String>,
        /// Also revoked ones
        #[arg(long)]
        revoked: bool,
        /// Print the records as JSON, one per line
        #[arg(long)]
        json: bool,
    },
    /// Put all vaults under a new master key; no server may run on the data directory meanwhile
    #[command(long_about = ROTATE_MASTER)]
    RotateMaster,
    /// End a key for good, at once
    Revoke {
        id: String,
        /// The key's workspace, if it is not the caller's own
        #[arg(long, value_name = "NAME")]
        workspace: Option<String>,
    },
}

const KEYS_HELP: &str = "\
Scopes are `agents`, `environments`, `sessions`, `models`, `vaults`, `keys`, `audit`, `workspaces` and `images`, each with `:read` or `:write` (which
includes reading). `*` is all of the key's own workspace; other workspaces and the host's images need `workspaces:…` and `images:…`.

The command talks to the server that uses the data directory, as its operator; without one, to the data directory itself; with
LOOPD_URL, to that server with the key in LOOPD_API_KEY.";

/// Kinds of rooms, the weakest first.
const ISOLATIONS: [&str; 2] = ["namespaces", "microvm"];

#[derive(Debug, Subcommand)]
pub enum WorkspacesCommand {
    /// Make a workspace, unless it is there; also the first key of a workspace makes it
    Create {
        name: String,
        /// Refuse environments with weaker walls [default: namespaces]
        #[arg(long, value_name = "KIND", value_parser = ISOLATIONS)]
        require_isolation: Option<String>,
    },
    /// Change what a workspace requires of its environments
    Update {
        /// Its name or id
        name: String,
        /// Refuse environments with weaker walls
        #[arg(long, value_name = "KIND", value_parser = ISOLATIONS)]
        require_isolation: String,
    },
    /// List all workspaces
    List,
}

#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only of this actor: a key's id, a token's subject, a session's id, `operator`, `development`, `unknown`
    #[arg(long)]
    pub actor: Option<String>,
    /// Only this action, such as `keys.create` or `credentials.use`
    #[arg(long)]
    pub action: Option<String>,
    /// Only what was done to this id
    #[arg(long, value_name = "ID")]
    pub resource: Option<String>,
    /// From this time on, such as `2026-11-25T00:00:00Z`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Another workspace than the caller's own, by name
    #[arg(long, value_name = "NAME")]
    pub workspace: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Print the entries as JSON, one per line
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct TraceArgs {
    /// The session's id
    pub session: String,
    /// Print the trace as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// List references and what they mean here
    List {
        /// Print the images as JSON, one per line
        #[arg(long)]
        json: bool,
    },
    /// Ask the registry what a reference means now, and fetch that; rooms made from now on are of it
    Pull {
        #[arg(value_name = "REFERENCE")]
        reference: String,
    },
    /// Forget what references mean; layers that nothing else needs go within the hour
    Remove {
        #[arg(required = true, value_name = "REFERENCE")]
        references: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build kernel, initramfs and base disk of virtual machines
    #[command(long_about = IMAGE_BUILD)]
    Build(BuildArgs),
}

const IMAGE_BUILD: &str = "\
Build kernel, initramfs and base disk of virtual machines, below `guest` in the data directory. The next room is made of them; what
runs keeps what it has.

With nothing said, the kernel is Debian's for virtual machines, fetched with `apt-get download` (no root, nothing is installed), and the
base disk has files of packages that are installed here. What was made before is not made again. The package `e2fsprogs` is needed. A
server may run meanwhile. When loopd itself is upgraded nothing has to be built again.";

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// A kernel: a `vmlinuz`, a `vmlinux`, or a Debian package's file
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Its modules [default: `/lib/modules/<release>` of a kernel named after its release]
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,
    /// A Debian package with a kernel, or that depends on one [default: linux-image-cloud-amd64]
    #[arg(long, value_name = "NAME", conflicts_with = "kernel")]
    pub kernel_package: Option<String>,
    /// Packages of this machine whose files, with all that they need, are the base disk; separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', group = "base")]
    pub packages: Vec<String>,
    /// A directory with a root file system as the base disk
    #[arg(long, value_name = "DIR", group = "base")]
    pub directory: Option<PathBuf>,
    /// An image of a registry, or an archive of one (`docker save`), as the base disk
    #[arg(long, value_name = "REFERENCE|FILE", group = "base")]
    pub image: Option<String>,
    /// Print what was built as JSON
    #[arg(long)]
    pub json: bool,
}

const ROTATE_MASTER: &str = "\
Put all vaults under a new master key; no server may run on the data directory meanwhile.

The new key is the one in LOOPD_MASTER_KEY_NEXT (32 random bytes in base64) or, where the key in use is in a file, one that is
made beside it. The keys of the vaults are wrapped anew; secrets, placeholders and sessions stay as they are. What was cut off
is done by the same command again, and meanwhile a server starts with both keys. The key before is kept as `<file>.previous`:
copies of the store that were made before need it.";

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        for exit in Exit::ALL {
            let line = format!("\n  {:<5}", exit.code());
            assert!(EXIT_CODES.contains(&line), "{exit:?}");
        }
    }

    #[test]
    fn the_place_may_stand_after_the_command() {
        let cli = Cli::try_parse_from(["loopd", "invoke", "--data", "/d", "--model", "m", "hello", "there"]);
        let cli = cli.expect("understood");
        assert_eq!(cli.place.data.as_deref(), Some(std::path::Path::new("/d")));
        let Command::Invoke(invoke) = cli.command else { panic!("not invoke") };
        assert_eq!(invoke.message, ["hello", "there"]);
    }

    #[test]
    fn a_base_disk_is_made_of_one_thing() {
        let build = |more: &[&str]| Cli::try_parse_from([&["loopd", "image", "build"], more].concat());
        let Command::Image(ImageCommand::Build(args)) = build(&["--packages", "bash,git"]).expect("understood").command
        else {
            panic!("not build")
        };
        assert_eq!(args.packages, ["bash", "git"]);
        for (one, other) in [("--packages=bash", "--directory=/d"), ("--image=debian", "--packages=bash")] {
            assert!(build(&[one, other]).expect_err("refused").to_string().contains("cannot be used with"));
        }
        assert!(build(&["--modules=/m"]).is_err(), "modules of no kernel");
        assert!(build(&["--kernel=/k", "--kernel-package=k"]).is_err());
    }

    #[test]
    fn two_system_prompts_are_one_too_many() {
        let told = Cli::try_parse_from(["loopd", "invoke", "--system", "a", "--system-file", "b", "hi"]);
        assert!(told.expect_err("refused").to_string().contains("cannot be used with"));
    }
}
