//! The attack suite: every file of `tests/attacks`, tried on a ground, with what came of it.
//!
//! ```text
//!  planted: what an attack could find ─► ground: a room of loopd, or a peer's ─► attack ─► verdict ─► aftermath: do the others live?
//! ```
//!
//! `README.md` beside the attacks is the contract between an attack and this runner.

pub mod loopd;
pub mod peer;
pub mod planted;

use std::path::{Path, PathBuf};

/// One file of the suite.
#[derive(Debug, Clone)]
pub struct Attack {
    pub name: String,
    /// Its file's name.
    pub file: String,
    pub class: String,
    pub tries: String,
    pub must: String,
    /// A program without which it cannot be tried.
    pub needs: Option<String>,
    /// It has no verdict of its own; what is looked at afterwards.
    pub ends: Option<String>,
    /// What its call must be answered with, in one of these ways.
    pub tells: Vec<String>,
    /// Why it is not tried where nothing limits it.
    pub bare: Option<String>,
    /// Why it is tried in loopd's rooms only.
    pub inside: Option<String>,
    pub interpreter: &'static str,
    pub text: String,
}

/// What came of an attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Held(String),
    /// It got through, or somebody else came to harm.
    Through(String),
    /// It could not be tried; why.
    Untried(String),
}

/// The suite, by class and name.
pub fn all() -> Vec<Attack> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks");
    let entries = std::fs::read_dir(&directory).expect("the attacks are there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut attacks: Vec<Attack> = paths.filter_map(|path| read(&path)).collect();
    attacks.sort_by_key(|attack| (order(&attack.class), attack.name.clone()));
    attacks
}

fn read(path: &PathBuf) -> Option<Attack> {
    let interpreter = match path.extension()?.to_str()? {
        "sh" => "bash",
        "py" => "python3",
        _ => return None,
    };
    let text = std::fs::read_to_string(path).expect("it can be read");
    let head = |key: &str| {
        let mark = format!("# {key}: ");
        text.lines()
            .take_while(|line| line.starts_with('#'))
            .find_map(|line| line.strip_prefix(&mark))
            .map(str::to_owned)
    };
    let need = |key: &str| head(key).unwrap_or_else(|| panic!("{}: no `# {key}:`", path.display()));
    Some(Attack {
        name: path.file_stem()?.to_str()?.to_owned(),
        file: path.file_name()?.to_str()?.to_owned(),
        class: need("class"),
        tries: need("tries"),
        must: need("must"),
        needs: head("needs"),
        ends: head("ends"),
        tells: head("tells").map(|ways| ways.split(" | ").map(str::to_owned).collect()).unwrap_or_default(),
        bare: head("bare"),
        inside: head("inside"),
        interpreter,
        text,
    })
}

fn order(class: &str) -> usize {
    let known = ["files", "processes", "kernel", "network", "exhaustion"];
    known.iter().position(|one| *one == class).unwrap_or_else(|| panic!("`{class}` is no class of attacks"))
}

impl Attack {
    /// Its call was answered as the model needs it.
    pub fn is_told(&self, said: &str) -> bool {
        self.tells.is_empty() || self.tells.iter().any(|way| said.contains(way))
    }

    /// As a command for a shell. What it prints ends with its verdict; see [`Attack::verdict`].
    ///
    /// It works in a directory that [`Attack::directory`] names.
    pub fn command(&self, variables: &[(String, String)], ground: &str) -> String {
        let exports: String = variables.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
        let needed = self.needs.as_deref().unwrap_or("true");
        let (interpreter, text) = (self.interpreter, &self.text);
        // A directory of its own: what an attack leaves behind must not be in the next one's way.
        format!(
            "{exports}command -v {needed} > /dev/null || {{ echo 'attack-ended: untried'; exit 0; }}\n\
             mkdir -p {directory} && cd {directory} && cat > attack <<'ATTACK_ENDS_HERE'\n{text}\nATTACK_ENDS_HERE\n\
             {interpreter} ./attack; echo \"attack-ended: $?\"; cd .. && rm -rf {directory}\n",
            directory = self.directory(ground),
        )
    }

    /// Named for the ground as well: another suite beside this one tries the same attacks.
    pub fn directory(&self, ground: &str) -> String {
        format!("attack-{}-{ground}", self.name)
    }

    /// What its output says; `None` when it says nothing.
    pub fn verdict(&self, output: &str) -> Option<Verdict> {
        let mut lines = output.lines().rev().skip_while(|line| !line.starts_with("attack-ended: "));
        let code = lines.next()?.strip_prefix("attack-ended: ")?;
        let last = lines.find(|line| !line.trim().is_empty()).unwrap_or("").trim().to_owned();
        match code {
            "0" => Some(Verdict::Held(last)),
            "7" => Some(Verdict::Through(last)),
            // SIGSYS, and what a shell makes of it.
            "159" => Some(Verdict::Held("killed for its system call".to_owned())),
            "untried" => {
                Some(Verdict::Untried(format!("`{}` is not there", self.needs.as_deref().unwrap_or_default())))
            }
            _ => None,
        }
    }
}
