//! Pages of lists, by a token that stays good while elements come and go.

use data_encoding::BASE64URL_NOPAD;

/// A token that this list did not hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadToken;

/// A key that sorts as the number does.
pub(crate) fn key(n: u64) -> String {
    format!("{n:020}")
}

/// One page of `items`, which are in the order of their keys, and the token of the next one.
pub(crate) fn page<T>(
    list: &str,
    items: Vec<(String, T)>,
    size: usize,
    token: Option<&str>,
) -> Result<(Vec<T>, Option<String>), BadToken> {
    let after = token.map(|token| decode(list, token)).transpose()?;
    let mut rest = items.into_iter().filter(|(k, _)| after.as_ref().is_none_or(|after| k > after)).peekable();
    let (mut taken, mut last) = (Vec::new(), String::new());
    while taken.len() < size {
        let Some((k, item)) = rest.next() else { break };
        taken.push(item);
        last = k;
    }
    let next = rest.peek().is_some().then(|| BASE64URL_NOPAD.encode(format!("{list}\n{last}").as_bytes()));
    Ok((taken, next))
}

fn decode(list: &str, token: &str) -> Result<String, BadToken> {
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).map_err(|_| BadToken)?;
    let text = String::from_utf8(bytes).map_err(|_| BadToken)?;
    let (named, after) = text.split_once('\n').ok_or(BadToken)?;
    if named == list { Ok(after.to_owned()) } else { Err(BadToken) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pages_make_the_whole_list(count in 0u64..60, size in 1usize..20) {
            let all: Vec<(String, u64)> = (1..=count).map(|n| (key(n * 3), n)).collect();
            let (mut seen, mut token) = (Vec::new(), None);
            loop {
                let (items, next) = page("l", all.clone(), size, token.as_deref()).expect("our own token");
                prop_assert!(items.len() <= size);
                seen.extend(items);
                token = next;
                if token.is_none() { break; }
            }
            prop_assert_eq!(seen, (1..=count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_foreign_token_is_refused() {
        let two = || vec![(key(1), ()), (key(2), ())];
        let (_, next) = page("a", two(), 1, None).expect("the first page");
        assert_eq!(page("b", two(), 1, next.as_deref()), Err(BadToken));
        assert_eq!(page("a", two(), 1, Some("?")), Err(BadToken));
    }
}
