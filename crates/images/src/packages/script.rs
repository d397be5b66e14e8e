//! What is said to the shell of a room to have packages installed.
//!
//! Nobody in the room has power over its root, and nothing is asked for that: packages are put into a tree in the workspace,
//! which becomes a layer.

use crate::settings::Mirror;
use loopd_domain::packages::Manager;

/// Raised with every change of what a script does.
pub(super) const VERSION: u32 = 3;
/// In the workspace: what is installed on the host.
pub(super) const STATUS: &str = "status";

/// What programs of a room need to find what a manager installed.
pub(super) fn variables(manager: Manager) -> &'static [(&'static str, &'static str)] {
    match manager {
        Manager::Npm => &[("NODE_PATH", "/usr/local/lib/node_modules")],
        // What stands after the colon are the root's own directories.
        Manager::Gem => &[("GEM_PATH", "/usr/local/share/gems:")],
        Manager::Apt | Manager::Pip | Manager::Cargo | Manager::Go => &[],
    }
}

/// A subshell, so that `set -e` holds for all of it; and one status, which is the command's.
pub(super) fn of(manager: Manager, names: &[String], mirror: Option<&Mirror>) -> String {
    let names: Vec<String> = names.iter().map(|name| quote(name)).collect();
    let names = names.join(" ");
    let body = match manager {
        Manager::Apt => apt(&names, mirror),
        Manager::Npm => npm(&names, mirror),
        Manager::Pip => pip(&names, mirror),
        Manager::Cargo => cargo(&names, mirror),
        Manager::Gem => gem(&names, mirror),
        Manager::Go => go(&names, mirror),
    };
    // What is printed goes to a file and not down a pipe, which a process that is left behind would hold open.
    format!(
        "log=/mnt/session/outputs/log\n: > $log\ntail -n +1 -f $log 2> /dev/null &\nshows=$!\n(\nset -e\numask 022\nmkdir -p /workspace/layer /workspace/tmp\nexport TMPDIR=/workspace/tmp\n{body}\n\
         tar -C /workspace/layer -cf /mnt/session/outputs/layer.tar .\n) > $log 2>&1 < /dev/null\n\
         status=$?\n{{ kill $shows; wait $shows; }} 2> /dev/null\nrm -rf /workspace/layer /workspace/tmp\n(exit $status)\n"
    )
}

fn pip(names: &str, mirror: Option<&Mirror>) -> String {
    let from = match mirror {
        None => String::new(),
        Some(mirror) if mirror.is_plain => {
            format!("export PIP_INDEX_URL={} PIP_TRUSTED_HOST={}\n", quote(&mirror.url), quote(&mirror.host))
        }
        Some(mirror) => format!("export PIP_INDEX_URL={}\n", quote(&mirror.url)),
    };
    // As variables, an older pip passes over what it does not know.
    format!(
        "export PIP_CONFIG_FILE=/dev/null PIP_BREAK_SYSTEM_PACKAGES=1 PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1\n{from}\
         python3 -m pip install --root /workspace/layer --ignore-installed --no-cache-dir --no-input --no-warn-script-location \
         --progress-bar off -- {names}"
    )
}

fn npm(names: &str, mirror: Option<&Mirror>) -> String {
    let from = mirror.map(|mirror| format!("--registry {} ", quote(&mirror.url))).unwrap_or_default();
    format!(
        "npm install --global --prefix /workspace/layer/usr/local --cache /workspace/tmp/npm --no-audit --no-fund \
         --no-update-notifier --loglevel http {from}-- {names}"
    )
}

/// An older one wants the whole index by git, which no room can have.
const CARGO_CHECK: &str = r#"version=$(cargo --version)
minor=${version#cargo 1.}
if [ "${minor%%.*}" -lt 68 ] 2> /dev/null; then
echo "packages by cargo need cargo 1.68 or later; this root has $version. Debian 12 has a later one in its package cargo-web"
exit 1
fi"#;

/// Programs are compiled here, by the root's own compiler. Where the index is has no variable, so it is said in a file.
fn cargo(names: &str, mirror: Option<&Mirror>) -> String {
    let from = mirror.map(|mirror| {
        let registry = format!("registry = \"sparse+{}/\"", mirror.url);
        let lines = ["[source.crates-io]", "replace-with = \"mirror\"", "[source.mirror]", &registry];
        lines.map(|line| format!("printf '%s\\n' {} >> $CARGO_HOME/config.toml\n", quote(line))).concat()
    });
    format!(
        "{CARGO_CHECK}\nexport CARGO_REGISTRIES_CRATES_IO_PROTOCOL=sparse\n\
         export CARGO_HOME=/workspace/tmp/cargo CARGO_TARGET_DIR=/workspace/tmp/target CARGO_TERM_COLOR=never\n\
         mkdir -p $CARGO_HOME\n{}\
         cargo install --locked --root /workspace/layer/usr/local -- {names}\n\
         rm -f /workspace/layer/usr/local/.crates.toml /workspace/layer/usr/local/.crates2.json",
        from.unwrap_or_default()
    )
}

/// What stands behind `--` are words for a compiler, so names stand before it; they begin with a letter or a digit.
fn gem(names: &str, mirror: Option<&Mirror>) -> String {
    let from = mirror.map(|mirror| format!("--clear-sources --source {} ", quote(&mirror.url))).unwrap_or_default();
    format!(
        "export GEM_HOME=/workspace/layer/usr/local/share/gems GEM_SPEC_CACHE=/workspace/tmp/gems\n\
         gem install --norc --install-dir $GEM_HOME --bindir /workspace/layer/usr/local/bin --no-document --env-shebang {from}{names}\n\
         rm -rf $GEM_HOME/cache"
    )
}

/// One after the other: named together they would have to be of one version.
fn go(names: &str, mirror: Option<&Mirror>) -> String {
    let from = mirror.map(|mirror| format!("export GOPROXY={} GOSUMDB=off\n", quote(&mirror.url))).unwrap_or_default();
    format!(
        "export GOBIN=/workspace/layer/usr/local/bin GOPATH=/workspace/tmp/go GOCACHE=/workspace/tmp/cache\n\
         export GOFLAGS=-modcacherw GOTOOLCHAIN=local GOENV=off GOTELEMETRY=off\n{from}\
         for name in {names}; do\ncase $name in *@*) ;; *) name=$name@latest ;; esac\n\
         echo \"installing $name\"\ngo install -- \"$name\"\ndone"
    )
}

/// Packages are fetched and unpacked; their maintainers' scripts want to be root, and do not run.
fn apt(names: &str, mirror: Option<&Mirror>) -> String {
    let sources = match mirror {
        Some(mirror) => format!("mirror={}\nsecurity=", quote(&mirror.url)),
        None => String::new(),
    };
    format!(
        r#". /etc/os-release
case "$ID" in
debian) mirror=http://deb.debian.org/debian security="http://deb.debian.org/debian-security $VERSION_CODENAME-security main" parts=main ;;
ubuntu) mirror=http://archive.ubuntu.com/ubuntu security="http://security.ubuntu.com/ubuntu $VERSION_CODENAME-security main universe" parts="main universe" ;;
*) echo "packages by apt need Debian or Ubuntu; this root is $ID"; exit 1 ;;
esac
{sources}
keys=/usr/share/keyrings/$ID-archive-keyring.gpg
apt=/workspace/tmp/apt
mkdir -p $apt/state/lists/partial $apt/cache/archives/partial $apt/etc/apt.conf.d $apt/etc/preferences.d $apt/etc/sources.list.d $apt/etc/trusted.gpg.d $apt/log
status=/var/lib/dpkg/status
if [ -s /workspace/{STATUS} ]; then status=/workspace/{STATUS}; fi
{{
echo "deb [signed-by=$keys] $mirror $VERSION_CODENAME $parts"
echo "deb [signed-by=$keys] $mirror $VERSION_CODENAME-updates $parts"
if [ -n "$security" ]; then echo "deb [signed-by=$keys] $security"; fi
}} > $apt/etc/sources.list
cat > $apt/apt.conf <<END
Dir::State "$apt/state";
Dir::State::status "$status";
Dir::Cache "$apt/cache";
Dir::Etc "$apt/etc";
Dir::Log "$apt/log";
APT::Sandbox::User "";
APT::Install-Recommends "0";
APT::Update::Error-Mode "any";
Debug::NoLocking "1";
Acquire::Languages "none";
Acquire::Retries "2";
END
export APT_CONFIG=$apt/apt.conf DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --download-only --no-remove -- {names}
for package in $apt/cache/archives/*.deb; do
if [ -e "$package" ]; then echo "unpacking ${{package##*/}}"; dpkg-deb -x "$package" /workspace/layer; fi
done
for part in bin sbin lib lib32 lib64 libx32; do
if [ -L /$part ] && [ -d /workspace/layer/$part ] && [ ! -L /workspace/layer/$part ]; then
mkdir -p /workspace/layer/usr/$part
cp -a /workspace/layer/$part/. /workspace/layer/usr/$part/
rm -rf /workspace/layer/$part
fi
done"#
    )
}

/// One word of the shell's.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_can_read_each_and_names_stay_words() {
        let mirror = Mirror::parse("http://mirror.test:8080/x?a=b'c").expect("a mirror");
        for manager in Manager::ALL {
            let script = of(manager, &["it's".to_owned(), "$(false)".to_owned()], Some(&mirror));
            let read = std::process::Command::new("sh").arg("-nc").arg(&script).output().expect("a shell");
            assert!(read.status.success(), "{script}\n{}", String::from_utf8_lossy(&read.stderr));
            assert!(script.contains(r"'it'\''s' '$(false)'"), "{script}");
            assert!(script.contains("mirror.test:8080"), "{script}");
        }
    }

    #[test]
    fn a_cargo_that_cannot_read_a_sparse_index_says_so() {
        let place = tempfile::tempdir().expect("a directory");
        let check = |version: &str| {
            let program = format!("#!/bin/sh\necho '{version}'\n");
            let fake = place.path().join("cargo");
            std::fs::write(&fake, program).expect("written");
            std::fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a program");
            let mut shell = std::process::Command::new("/bin/sh");
            let done = shell.arg("-ec").arg(CARGO_CHECK).env("PATH", place.path()).output().expect("a shell");
            (done.status.success(), String::from_utf8(done.stdout).expect("text"))
        };
        for old in ["cargo 1.66.0 (d65d197ad 2022-11-15)", "cargo 1.9.0"] {
            let (is_fine, told) = check(old);
            assert!(!is_fine && told.contains("need cargo 1.68 or later; this root has cargo 1."), "{told}");
        }
        for new in ["cargo 1.68.0", "cargo 1.96.0-nightly (abc 2026-01-01)", "cargo 2.0.0", "something else"] {
            assert_eq!(check(new), (true, String::new()), "{new}");
        }
    }
}
