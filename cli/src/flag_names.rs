//! Replaces the fields in messages of the library by the flags of the command.

/// Fields of the library's options that appear in its messages, each with the flag that sets the field.
const FLAGS: [(&str, &str); 8] = [
    ("output_dir", "--output"),
    ("topology", "--topology"),
    ("max_k", "--max-k"),
    ("vocab", "--vocab"),
    ("row_buckets", "--row-buckets"),
    ("keep_ties", "--keep-ties"),
    ("debug_arrays", "--debug-arrays"),
    ("row_counts", "--batch"),
];

/// If a message starts with a field of the library's options, replaces the field by the flag.
pub(crate) fn name_flags(message: &str) -> String {
    for (field, flag) in FLAGS {
        if let Some(rest) = message.strip_prefix(field).filter(|rest| rest.starts_with([' ', '['])) {
            return format!("{flag}{rest}");
        }
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_flags() {
        assert_eq!(name_flags("output_dir is /x: no"), "--output is /x: no");
        assert_eq!(name_flags("topology is \"x\""), "--topology is \"x\"");
        assert_eq!(name_flags("topology_x is"), "topology_x is");
        assert_eq!(name_flags("the plugin has no topology"), "the plugin has no topology");
    }
}
