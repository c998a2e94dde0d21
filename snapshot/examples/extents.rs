//! Keeps the extents of a file in an extent store and reads them back: each content takes room
//! once.
//!
//! ```text
//! cargo run -p vgship-snapshot --example extents -- FILE FOLDER
//! ```

use std::error::Error;
use std::io::Read;
use std::sync::Arc;

use vgship_base::ids::GroupId;
use vgship_base::io::RealFolder;
use vgship_base::units::ByteLen;
use vgship_snapshot::seal::DataKey;
use vgship_snapshot::store::Store;

const EXTENT: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(folder)) = (args.next(), args.next()) else {
        return Err("usage: extents FILE FOLDER".into());
    };
    let key = DataKey::generate()?; // a program keeps it, wrapped by a KeyEncryptionKey
    let (mut store, found) =
        Store::open(Arc::new(RealFolder::open(folder)?), &key, GroupId([1; 16]))?;
    println!("{} extents are there, {} places are damaged", found.extents, found.damage.len());

    let (mut file, mut extents) = (std::fs::File::open(file)?, Vec::new());
    let mut extent = Vec::with_capacity(EXTENT);
    loop {
        extent.clear();
        file.by_ref().take(EXTENT as u64).read_to_end(&mut extent)?;
        if extent.is_empty() {
            break;
        }
        extents.push(store.put(&extent)?);
    }
    store.flush()?;

    let mut bytes = 0;
    for &id in &extents {
        bytes += store.get(id)?.map_or(0, |content| content.len() as u64);
    }
    println!("{} extents, {}, of which {} differ", extents.len(), ByteLen(bytes), store.len());
    Ok(())
}
