//! `vgship unveil`: the plain images of what a blind replica holds, for whoever has the key.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vgship_base::bytes::is_zero;
use vgship_base::disk::{Allocation, Disk};
use vgship_base::ids::VolumeId;
use vgship_base::io::FileDisk;
use vgship_base::spread::spread;
use vgship_base::units::{ByteLen, SECTOR};
use vgship_snapshot::veil::{ESCROW_MAX, Escrow, VeilKey};

use super::Context;
use super::table::Table;
use crate::api::ControlError;
use crate::api::past::ExportedFile;
use crate::capture::io::report;
use crate::home::io::SECRET;
use crate::keys::escrow::key_at;
use crate::keys::veiled::Veiled;

/// What is read and written at once. Unit: bytes.
const PIECE: usize = 1 << 20;

/// What is looked at for being zero. Unit: bytes.
const GRAIN: usize = 64 << 10;

/// Volumes that are written at once.
const WORKERS: usize = 2;

/// Make plain images of those that a blind replica wrote
///
/// Takes what "vgship snapshot export" wrote on a blind replica, of any point, and the escrow that
/// "vgship key escrow" made on its source. Needs no agent. Names and sizes are compared with those in
/// the escrow before anything is written; nothing is overwritten.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The escrow
    #[arg(long, value_name = "FILE")]
    escrow: PathBuf,
    /// The key that opens the escrow: that of "key escrow --key-file", or the source's file "key"
    #[arg(long, value_name = "KEYFILE")]
    key_file: PathBuf,
    /// The folder of the veiled images
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The folder for the plain ones, which is made where it is not there
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Unveiled {
    /// What its source called the group.
    group: String,
    /// The veil key's id.
    key: String,
    /// One for each LV.
    files: Vec<ExportedFile>,
    /// What a person should know of them.
    notes: Vec<String>,
}

pub(super) fn run(args: &Args, context: &Context<'_>) -> Result<(), ControlError> {
    let escrow = read_escrow(&args.escrow)?;
    let by = key_at(&context.home, &args.key_file)?;
    let key = escrow.open(&by).map_err(|error| {
        ControlError::from_error(&error).hint(
            "give the key file whose key the escrow was made with: vgship key escrow said which",
        )
    })?;
    let mut notes = Vec::new();
    check_note(&escrow, &args.from, &mut notes)?;
    let jobs = jobs(&escrow, args, &mut notes)?;
    fs::create_dir_all(&args.to).map_err(|it| cannot("make the folder", &args.to, &it))?;
    let files = spread(&jobs, WORKERS, |job| job.run(&key))?;
    let synced = File::open(&args.to).and_then(|folder| folder.sync_all());
    synced.map_err(|it| cannot("flush the folder", &args.to, &it))?;
    let (group, key) = (escrow.name.to_string(), key.id().to_string());
    context.output.result(&Unveiled { group, key, files, notes }, rendered)
}

fn rendered(done: &Unveiled) -> String {
    let mut table = Table::new(["IMAGE", "BYTES", "WRITTEN"]);
    for file in &done.files {
        let (bytes, written) = (ByteLen(file.bytes), ByteLen(file.written_bytes));
        table.row([file.path.display().to_string(), bytes.to_string(), written.to_string()]);
    }
    let mut text = format!("{table}group {}, unveiled with key {}", done.group, done.key);
    for note in &done.notes {
        let _ = write!(text, "\nnote: {note}");
    }
    text
}

fn cannot(action: &str, path: &Path, error: &io::Error) -> ControlError {
    ControlError::failed(format!("cannot {action} {}: {}", path.display(), report(error)))
}

fn read_escrow(path: &Path) -> Result<Escrow, ControlError> {
    let found = fs::metadata(path).map_err(|it| cannot("read", path, &it))?;
    if found.len() > ESCROW_MAX as u64 {
        return Err(ControlError::failed(format!("{} is no escrow: too long", path.display())));
    }
    let bytes = fs::read(path).map_err(|it| cannot("read", path, &it))?;
    Escrow::decode(&bytes).map_err(|error| {
        ControlError::failed(format!("{} cannot be used: {}", path.display(), report(&error)))
            .hint("give the file that vgship key escrow wrote")
    })
}

/// The images' own word on what they were veiled with: the cipher would not notice another key.
fn check_note(escrow: &Escrow, from: &Path, notes: &mut Vec<String>) -> Result<(), ControlError> {
    let Some(note) = Veiled::read(from)? else {
        notes.push(format!(
            "{} is missing: nothing tells whether the images were veiled with this key; look into \
             what came out",
            Veiled::place(from).display()
        ));
        return Ok(());
    };
    if (note.group, note.veil) == (escrow.key.group, escrow.key.id) {
        return Ok(());
    }
    Err(ControlError::refused(format!(
        "the images in {} are of group {} and veiled with key {}, the escrow holds key {} of group \
         {} ({})",
        from.display(),
        note.group,
        note.veil,
        escrow.key.id,
        escrow.key.group,
        escrow.name
    ))
    .hint("give the escrow of that group"))
}

/// One image to be written.
struct Job {
    volume: VolumeId,
    from: PathBuf,
    to: PathBuf,
}

/// All images, when all of them can be: nothing is begun before.
fn jobs(escrow: &Escrow, args: &Args, notes: &mut Vec<String>) -> Result<Vec<Job>, ControlError> {
    let mut jobs = Vec::new();
    for (volume, known) in escrow.layout.ids().zip(&escrow.layout.volumes) {
        let name = known.name.as_str();
        let (from, to) = (args.from.join(name), args.to.join(name));
        let found = fs::metadata(&from).map_err(|it| cannot("find the image", &from, &it))?;
        let (bytes, expected) = (found.len(), known.bytes);
        let whole = found.is_file() && bytes.is_multiple_of(SECTOR);
        if !whole || bytes < expected {
            return Err(ControlError::refused(format!(
                "{} has {bytes} bytes, and volume {name} had {expected} when the escrow was made",
                from.display()
            ))
            .hint("export the images anew, or give the escrow of that group"));
        }
        if bytes > expected {
            notes.push(format!("{name} has grown since the escrow was made"));
        }
        if fs::symlink_metadata(&to).is_ok() {
            return Err(ControlError::refused(format!("{} is there already", to.display()))
                .hint("name a folder that has none of these images"));
        }
        jobs.push(Job { volume, from, to });
    }
    Ok(jobs)
}

impl Job {
    /// Writes the image under a name of its own, then gives it its name, which nobody may have.
    fn run(&self, key: &VeilKey) -> Result<ExportedFile, ControlError> {
        let failed = |error: io::Error| cannot("write", &self.to, &error);
        let disk = File::open(&self.from).and_then(FileDisk::fixed);
        let disk = disk.map_err(|it| cannot("open", &self.from, &it))?;
        let folder = self.to.parent().unwrap_or(Path::new("."));
        let fresh =
            tempfile::Builder::new().prefix(".unveiling-").tempfile_in(folder).map_err(failed)?;
        let private = PermissionsExt::from_mode(SECRET);
        fresh.as_file().set_permissions(private).map_err(failed)?;
        fresh.as_file().set_len(disk.len()).map_err(failed)?;
        let to = fresh.as_file().try_clone().and_then(FileDisk::fixed).map_err(failed)?;
        let written = copy(key, self.volume, &disk, &to).map_err(failed)?;
        fresh.persist_noclobber(&self.to).map_err(|it| failed(it.error))?;
        Ok(ExportedFile { path: self.to.clone(), bytes: disk.len(), written_bytes: written })
    }
}

/// Unveils all of a disk into one of zeroes; how much of it is not zero. Unit: bytes.
///
/// Durable: once this has returned.
fn copy(key: &VeilKey, volume: VolumeId, from: &dyn Disk, to: &dyn Disk) -> io::Result<u64> {
    let (mut at, mut written, mut piece) = (0, 0, vec![0; PIECE]);
    while at < from.len() {
        let (kind, end) = from.allocation(at, from.len())?;
        if kind == Allocation::Hole {
            at = end.next_multiple_of(SECTOR).min(from.len());
            continue;
        }
        // Whole sectors, wherever the file system says that something ends.
        let end = end.next_multiple_of(SECTOR).min(from.len());
        let len = usize::try_from((end - at).min(PIECE as u64)).map_err(io::Error::other)?;
        from.read_at(at, &mut piece[..len])?;
        key.unveil(volume, at, &mut piece[..len]);
        for (place, grain) in (at..).step_by(GRAIN).zip(piece[..len].chunks(GRAIN)) {
            if !is_zero(grain) {
                to.write_at(place, grain)?;
                written += grain.len() as u64;
            }
        }
        at += len as u64;
    }
    to.flush()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use vgship_base::sim::{Power, SimDisk};

    use super::*;

    #[test]
    fn what_was_veiled_comes_out_and_holes_stay_holes() {
        let key = VeilKey::generate().unwrap();
        let (from, to) = (
            SimDisk::volume(&Power::default(), (2 << 20) + 512),
            SimDisk::volume(&Power::default(), (2 << 20) + 512),
        );
        let mut content = vec![0; (2 << 20) + 512];
        content[70_000..70_100].fill(7);
        content[2 << 20..].fill(9);
        let mut veiled = content.clone();
        key.veil(VolumeId(3), 0, &mut veiled);
        from.write_at(0, &veiled).unwrap();
        assert_eq!(copy(&key, VolumeId(3), &from, &to).unwrap(), (64 << 10) + 512);
        assert!(to.live() == content);
    }
}
