//! Which model of the hub a model was made from, where that is known.
//!
//! Only what says so counts: the hub id that it was opened by, or the `base_model` of the card (README.md) in its folder.
//! `_name_or_path` of a configuration does not: it is as often somebody's folder.

use super::hub;
use crate::files::{self, Location};

const CARD: &str = "README.md";

/// Of the model that was opened by this name and found in one of `folders`.
pub(super) fn of(named: &Location, folders: &[&Location]) -> Option<String> {
    let name = named.to_str().unwrap_or_default();
    // A folder goes before a hub id of its name.
    match hub::is_id(name) && !files::exists(named) {
        true => Some(without_revision(name)),
        false => folders.iter().find_map(|folder| in_card(&folder.join(CARD))),
    }
}

/// What the card names, if it is a hub id. A card that cannot be read names none: it is no part of the model.
fn in_card(card: &Location) -> Option<String> {
    if !files::is_file(card) {
        return None;
    }
    let bytes = files::bytes(card).ok()?;
    base_model(&String::from_utf8_lossy(&bytes))
}

/// `base_model` of the YAML that a card begins with: a name, or a list of one.
fn base_model(card: &str) -> Option<String> {
    let mut lines = card.lines().map(str::trim_end);
    if lines.next() != Some("---") {
        return None;
    }
    let mut front = lines.take_while(|line| *line != "---").skip_while(|line| !line.starts_with("base_model:"));
    let value = |text: &str| text.trim().trim_matches(['"', '\'']).to_string();
    let name = match value(front.next()?.strip_prefix("base_model:")?) {
        name if name.is_empty() => {
            let mut list = front.map_while(|line| line.trim_start().strip_prefix("- "));
            let first = value(list.next()?);
            // Of a model that was merged from several none is the one.
            if list.next().is_some() {
                return None;
            }
            first
        }
        name => name,
    };
    hub::is_id(&name).then(|| without_revision(&name))
}

fn without_revision(id: &str) -> String {
    id.split_once('@').map_or(id, |(name, _)| name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::anywhere;

    #[test]
    fn a_card_names_one_model_of_the_hub_or_none() {
        let cases = [
            ("---\nbase_model: some/model\n---\n", Some("some/model")),
            ("---\r\nlicense: mit\r\nbase_model: \"some/model\"\r\n---\r\n", Some("some/model")),
            ("---\nbase_model:\n- some/model\ntags:\n- x\n---\n", Some("some/model")),
            ("---\nbase_model:\n  - 'some/model'\n---\n", Some("some/model")),
            ("---\nbase_model:\n- some/model\n- other/model\n---\n", None),
            ("---\nbase_model: [some/model]\n---\n", None),
            ("---\nbase_model: /home/me/model\n---\n", None),
            ("---\nbase_model: tiny\n---\n", None),
            ("---\nbase_model:\n---\n", None),
            ("---\nlicense: mit\n---\nbase_model: some/model\n", None),
            ("base_model: some/model\n", None),
            ("", None),
        ];
        for (card, expected) in cases {
            assert_eq!(base_model(card).as_deref(), expected, "{card:?}");
        }
    }

    #[test]
    fn a_folder_goes_before_a_hub_id_of_its_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = anywhere(dir.path());
        assert_eq!(of(&folder, &[&folder]), None);
        std::fs::write(dir.path().join(CARD), "---\nbase_model: some/model\n---\n").expect("written");
        assert_eq!(of(&folder, &[&folder]).as_deref(), Some("some/model"));
        assert_eq!(of(&anywhere("other/model@v1"), &[&folder]).as_deref(), Some("other/model"));
        assert_eq!(of(&anywhere("src/model"), &[]), None, "a folder that is there");
    }
}
