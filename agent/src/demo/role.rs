//! What the demonstration's program does inside an environment: masks it, and checks that it was
//! masked. One block of each LV, which the workload never writes, stands for what is secret.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::content::{BLOCK, BLOCK_BYTES, initial};
use super::nbd::{Client, Command, Request};

/// The block of each LV that is masked.
const SECRET: u64 = 1;

/// What it holds then, over and over.
const MASKED: &[u8; 8] = b"MASKED. ";

/// What the check says.
pub(super) const CHECKED: &str = "no secret is left";

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Role {
    /// Overwrites what is secret.
    Mask,
    /// Looks whether that was done.
    Check,
}

/// Does it, on the exports that the environment's variables name.
pub(super) fn run(role: Role) -> Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| name.to_owned());
    let (socket, exports) = (variable("VGSHIP_NBD_SOCKET")?, variable("VGSHIP_EXPORTS")?);
    let mut done = 0;
    for line in exports.lines() {
        let export = line.split_whitespace().next_back().context("an empty line")?;
        let mut client = Client::connect(Path::new(&socket), export)?;
        let masked = masked();
        if role == Role::Mask {
            client.call(&Request {
                command: Command::Write,
                offset: SECRET * BLOCK_BYTES,
                len: u32::try_from(BLOCK)?,
                data: &masked,
                durable: true,
            })?;
        } else {
            let mut found = vec![0; BLOCK];
            client.read(SECRET * BLOCK_BYTES, &mut found)?;
            ensure!(found == masked, "{export} is not masked");
        }
        done += 1;
    }
    ensure!(done > 0, "there is no export");
    if role == Role::Check {
        println!("{done} LVs: {CHECKED}");
    }
    Ok(())
}

fn masked() -> Vec<u8> {
    MASKED.iter().copied().cycle().take(BLOCK).collect()
}

/// Puts back into what was read at `at` of an LV what the masking took, after making sure of it.
pub(super) fn unmask(seed: u64, lv: usize, at: u64, content: &mut [u8]) -> Result<()> {
    let secret = SECRET * BLOCK_BYTES;
    let Some(start) = secret.checked_sub(at).and_then(|start| usize::try_from(start).ok()) else {
        return Ok(());
    };
    let Some(block) = content.get_mut(start..start + BLOCK) else { return Ok(()) };
    ensure!(block == masked(), "LV {lv} is not masked");
    block.copy_from_slice(&initial(seed, lv, SECRET));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_masked_is_put_back_and_what_was_not_is_found() {
        let right: Vec<u8> = (0..4).flat_map(|block| initial(7, 2, block)).collect();
        let mut content = right.clone();
        assert!(unmask(7, 2, 0, &mut content).is_err());
        content[BLOCK..2 * BLOCK].copy_from_slice(&masked());
        unmask(7, 2, 0, &mut content).unwrap();
        assert!(content == right);
        unmask(7, 2, 2 * BLOCK_BYTES, &mut content).unwrap();
        assert!(content == right, "elsewhere nothing is masked");
    }
}
