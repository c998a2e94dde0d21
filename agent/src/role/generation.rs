//! How a person names the generation that a command acts on: by its first digits.

use vgship_base::ids::Generation;

/// Shortest beginning of a generation that names it. Unit: digits.
pub const GENERATION_MIN: usize = 4;

/// Whether a person means this generation.
pub fn is_meant(generation: Generation, meant: &str) -> bool {
    let meant = meant.to_ascii_lowercase();
    meant.len() >= GENERATION_MIN && generation.to_string().starts_with(&meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_named_by_its_beginning() {
        let generation = Generation([0xab; 16]);
        for (meant, is) in [("abab", true), ("ABABAB", true), ("aba", false), ("", false)] {
            assert_eq!(is_meant(generation, meant), is, "{meant}");
        }
        assert!(is_meant(generation, &generation.to_string()));
        assert!(!is_meant(generation, "abac"));
    }
}
