//! An initial RAM disk, in the "newc" form of cpio that Linux unpacks at its start.
//!
//! ```text
//! at  size  field      unit      rule
//!  0     6  magic      -         the digits 070701
//!  6     8  inode      -         hexadecimal digits, as all that follow; distinct per entry
//! 14     8  mode       -         type and permissions as stat(2) has them
//! 22    16  owner      -         user, group: 0
//! 38     8  links      -         1
//! 46     8  time       seconds   0
//! 54     8  length     bytes     of the content
//! 62    16  held on    -         device of the file: 0, 0
//! 78    16  device     -         major, minor, of a device node
//! 94     8  name size  bytes     with its closing zero
//! 102    8  check      -         0
//! 110    -  name, zero, padding to 4; content, padding to 4
//! ```

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, (0, 0), &[]);
    }

    /// Adds a file that may be executed.
    pub fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, (0, 0), content);
    }

    /// Adds a character device by its major and minor number.
    pub fn device(&mut self, name: &str, numbers: (u32, u32)) {
        self.entry(name, CHARACTER_DEVICE, numbers, &[]);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let fields = [
            u64::from(self.entries),
            u64::from(mode),
            0,
            0,
            1,
            0,
            content.len() as u64,
            0,
            0,
            u64::from(device.0),
            u64::from(device.1),
            name.len() as u64 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_a_name_and_its_content_each_padded() {
        let mut archive = Archive::default();
        archive.program("ab", b"hello");
        let bytes = archive.finish();
        let header = "07070100000001000081ed00000000000000000000000100000000000000050000000000000000\
                      000000000000000000000003\
                      00000000";
        assert_eq!(&bytes[..110], header.as_bytes());
        assert_eq!(&bytes[110..124], b"ab\0\0\0\0hello\0\0\0".as_slice().get(..14).expect("14"));
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
    }
}
