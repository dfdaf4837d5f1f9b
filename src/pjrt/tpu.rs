//! Requirements of libtpu, the plugin for TPUs, on the host and the environment. No other plugin has such
//! requirements.

use std::fs;
use std::path::Path;

/// The environment variables that libtpu needs to compile ahead of time on a host without a TPU, or while another
/// process uses the TPU. With them libtpu does not query a metadata server, does not wait for other workers, and does
/// not take a lock. Outside Google's cloud, the query takes minutes to fail. The variables must be set before the
/// plugin is loaded. This library never sets them, because changing the environment of a process with several threads
/// is undefined behaviour.
pub const LIBTPU_AHEAD_ENVIRONMENT: [(&str, &str); 3] =
    [("TPU_SKIP_MDS_QUERY", "1"), ("TPU_WORKER_HOSTNAMES", "localhost"), ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")];

/// Functions that only libtpu exports. They identify libtpu under any file name.
pub(super) const LIBTPU_SYMBOLS: [&[u8]; 2] = [b"GetLibtpuSdkApi\0", b"TfTpu_Initialize\0"];

/// Whether this host has a TPU: an accelerator device node, or a PCI device of Google that is neither a disk nor a
/// network card.
pub fn host_has_tpu() -> bool {
    Path::new("/dev/accel0").exists() || pci_has_tpu(Path::new("/sys/bus/pci/devices"))
}

fn pci_has_tpu(devices: &Path) -> bool {
    let is_tpu = |device: &Path| {
        let read = |name: &str| fs::read_to_string(device.join(name)).unwrap_or_default();
        let class = read("class");
        // The check uses the PCI class, because each generation of TPUs has new device ids.
        read("vendor").trim() == "0x1ae0" && !class.starts_with("0x01") && !class.starts_with("0x02")
    };
    fs::read_dir(devices).is_ok_and(|entries| entries.flatten().any(|entry| is_tpu(&entry.path())))
}

/// Whether libtpu's initialisation would take minutes to detect that this host has no TPU.
pub(super) fn would_ask_metadata_server() -> bool {
    let (variable, _) = LIBTPU_AHEAD_ENVIRONMENT[0];
    std::env::var_os(variable).is_none() && !host_has_tpu()
}

/// The variables as shell assignments, for messages.
pub(super) fn ahead_environment() -> String {
    let assignments = LIBTPU_AHEAD_ENVIRONMENT.map(|(name, value)| format!("{name}={value}"));
    assignments.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_network_cards_of_google_are_not_tpus() {
        let directory = std::env::temp_dir().join(format!("nucleus-pci-{}", std::process::id()));
        let device = |name: &str, vendor: &str, class: &str| {
            let device = directory.join(name);
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
            fs::write(device.join("class"), format!("{class}\n")).unwrap();
        };
        assert!(!pci_has_tpu(&directory));
        device("0000:00:03.0", "0x1ae0", "0x020000");
        device("0000:00:04.0", "0x1ae0", "0x010802");
        device("0000:00:05.0", "0x10de", "0x120000");
        assert!(!pci_has_tpu(&directory));
        device("0000:00:06.0", "0x1ae0", "0x120000");
        assert!(pci_has_tpu(&directory));
        fs::remove_dir_all(&directory).unwrap();
    }
}
