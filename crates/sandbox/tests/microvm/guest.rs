//! A guest for tests of machines: the only process of its machine. It answers lines on the link with lines.

use std::ffi::{CString, c_char, c_int, c_long, c_ulong, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

unsafe extern "C" {
    fn mount(source: *const c_char, at: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
    fn reboot(how: c_int) -> c_int;
}

const FINIT_MODULE: c_long = 313;
const POWER_OFF: c_int = 0x4321_fedc;
const RESTART: c_int = 0x0123_4567;

fn main() {
    for (kind, at) in [("devtmpfs", "/dev"), ("sysfs", "/sys"), ("proc", "/proc")] {
        let _ = fs::create_dir(at);
        let (kind, at) = (CString::new(kind).unwrap(), CString::new(at).unwrap());
        unsafe { mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    }
    for name in fs::read_to_string("/modules/order").unwrap().lines() {
        let file = File::open(format!("/modules/{name}")).unwrap();
        let loaded = unsafe { syscall(FINIT_MODULE, file.as_raw_fd(), c"".as_ptr(), 0) };
        assert_eq!(loaded, 0, "{name}");
    }
    let mut port = port();
    port.write_all(b"hello\n").unwrap();
    let mut held = Vec::new();
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        match port.read(&mut byte) {
            Ok(1) if byte[0] == b'\n' => {
                let text = String::from_utf8_lossy(&line).into_owned();
                line.clear();
                let answer = answer(&text, &mut held);
                port.write_all(format!("{answer}\n").as_bytes()).unwrap();
            }
            Ok(1) => line.push(byte[0]),
            // Nobody is connected.
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn port() -> File {
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == "loopd" {
                let path = PathBuf::from("/dev").join(entry.file_name());
                return OpenOptions::new().read(true).write(true).open(path).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn answer(line: &str, held: &mut Vec<u8>) -> String {
    let (order, rest) = line.split_once(' ').unwrap_or((line, ""));
    match order {
        "echo" => rest.to_owned(),
        // Half of it repeats itself, as what programs hold does.
        "hold" => {
            *held = vec![7; rest.parse::<usize>().unwrap() << 20];
            let half = held.len() / 2;
            File::open("/dev/urandom").unwrap().read_exact(&mut held[..half]).unwrap();
            sum(held)
        }
        "sum" => sum(held),
        "draw" => {
            let mut drawn = [0; 16];
            File::open("/dev/urandom").unwrap().read_exact(&mut drawn).unwrap();
            drawn.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        "disks" => disks(),
        "write" => write(rest),
        "read" => read(rest),
        "flood" => {
            let mut console = OpenOptions::new().write(true).open("/dev/console").unwrap();
            let text = vec![b'x'; 1 << 10];
            for _ in 0..rest.parse::<usize>().unwrap() {
                console.write_all(&text).unwrap();
            }
            "flooded".to_owned()
        }
        "clock" => {
            fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource").unwrap().trim().to_owned()
        }
        "uptime" => fs::read_to_string("/proc/uptime").unwrap().trim().to_owned(),
        "panic" => panic!("as it was told"),
        "off" => unsafe { reboot(POWER_OFF) }.to_string(),
        "restart" => unsafe { reboot(RESTART) }.to_string(),
        _ => "unknown".to_owned(),
    }
}

fn sum(held: &[u8]) -> String {
    held.iter().fold(5381u64, |sum, byte| sum.wrapping_mul(33) ^ u64::from(*byte)).to_string()
}

/// `vda=base:ro:16384 …`: name, serial number, whether it can be written, sectors.
fn disks() -> String {
    let mut names: Vec<_> = fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path()).collect();
    names.sort();
    let disk = |path: PathBuf| {
        let fact = |name: &str| fs::read_to_string(path.join(name)).ok().map(|text| text.trim().to_owned());
        let serial = fact("serial")?;
        let mode = if fact("ro")? == "1" { "ro" } else { "rw" };
        Some(format!("{}={serial}:{mode}:{}", path.file_name()?.to_str()?, fact("size")?))
    };
    names.into_iter().filter_map(disk).collect::<Vec<_>>().join(" ")
}

/// `vdb TEXT`
fn write(rest: &str) -> String {
    let (disk, text) = rest.split_once(' ').unwrap();
    let written = OpenOptions::new().write(true).open(format!("/dev/{disk}")).and_then(|mut disk| {
        disk.write_all(text.as_bytes())?;
        disk.sync_all()
    });
    written.map_or_else(|fault| format!("no: {fault}"), |()| "written".to_owned())
}

/// `vdb LENGTH`
fn read(rest: &str) -> String {
    let (disk, length) = rest.split_once(' ').unwrap();
    let mut text = vec![0; length.parse().unwrap()];
    let mut disk = File::open(format!("/dev/{disk}")).unwrap();
    disk.seek(SeekFrom::Start(0)).unwrap();
    disk.read_exact(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}
