//! Where an answer ends: end tokens, and stop texts, which may be special tokens or hold some.

use super::network::Network;
use crate::model::Tokenizer;

/// What ends the answers of one call.
pub(super) struct Ends<'a> {
    tokenizer: Option<&'a Tokenizer>,
    /// The model's end tokens, and the special tokens that are stop texts.
    tokens: Vec<u32>,
    /// Stop texts without special tokens: what a reader sees holds them.
    plain: Vec<&'a str>,
    /// Stop texts with a special token among other text, and what a reader sees of them.
    spelled: Vec<(&'a str, String)>,
}

impl<'a> Ends<'a> {
    pub fn new(network: &'a dyn Network, stop: &'a [String]) -> Self {
        let tokenizer = network.tokenizer();
        let mut ends = Self { tokenizer, tokens: network.ends().to_vec(), plain: Vec::new(), spelled: Vec::new() };
        for text in stop {
            let special = tokenizer.and_then(|t| t.id(text).filter(|&id| t.is_special(id)));
            let holds = tokenizer.is_some_and(|t| t.special().any(|token| text.contains(token)));
            match (special, holds) {
                (Some(id), _) => ends.tokens.push(id),
                (None, false) => ends.plain.push(text),
                (None, true) => {
                    let mut seen = text.clone();
                    tokenizer.into_iter().flat_map(Tokenizer::special).for_each(|token| seen = seen.replace(token, ""));
                    ends.spelled.push((text, seen));
                }
            }
        }
        ends
    }

    /// Whether the answer so far has come to its end.
    pub fn reached(&self, tokens: &[u32]) -> bool {
        if self.at_token(tokens) {
            return true;
        }
        let Some(tokenizer) = self.tokenizer else { return false };
        // Decoding is not free: what no stop text asks for is not decoded.
        let seen = if self.plain.is_empty() { String::new() } else { tokenizer.decode(tokens) };
        let spelled = if self.spelled.is_empty() { String::new() } else { tokenizer.decode_special(tokens) };
        self.plain.iter().any(|stop| seen.contains(stop)) || self.spelled.iter().any(|(stop, _)| spelled.contains(stop))
    }

    /// What the answer says, up to its end.
    pub fn text(&self, tokens: &[u32]) -> String {
        let Some(tokenizer) = self.tokenizer else { return String::new() };
        let text = tokenizer.decode(&tokens[..tokens.len() - usize::from(self.at_token(tokens))]);
        if let Some(at) = self.plain.iter().filter_map(|stop| text.find(stop)).min() {
            return text[..at].to_string();
        }
        let spelled = if self.spelled.is_empty() { String::new() } else { tokenizer.decode_special(tokens) };
        let stopped = self.spelled.iter().find(|(stop, _)| spelled.contains(stop));
        match stopped.and_then(|(_, seen)| text.strip_suffix(seen.as_str())) {
            Some(before) => before.to_string(),
            None => text,
        }
    }

    fn at_token(&self, tokens: &[u32]) -> bool {
        tokens.last().is_some_and(|token| self.tokens.contains(token))
    }
}
