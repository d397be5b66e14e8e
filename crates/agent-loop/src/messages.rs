//! What the model reads when a call is not run, or when its answer cannot be used. Each says what happened, that nothing
//! was done, and what to do instead.

/// Longest piece of a name that a message repeats, in characters.
const NAME_CHARS_MAX: usize = 80;

/// The client interrupted before the call was done. The wire's own words.
pub const INTERRUPTED: &str = "Tool execution was interrupted before completion. Please retry.";

/// The turn's time was over before the call was done.
pub const TIME_UP: &str = "This call was not run: the time limit of the turn was reached.";

/// The model's own refusal came with calls.
pub(crate) const REFUSED: &str = "This call was not run: the answer that asked for it ended in a refusal.";

pub(crate) const EMPTY_ANSWER: &str = "Your last answer was empty. Go on with the task, or say in words what the tool \
                                       results mean and that you are done.";

pub(crate) fn too_many_calls(max: usize) -> String {
    format!("This call was not run: at most {max} calls are run of one answer. Ask again in your next answer.")
}

pub(crate) fn malformed(reason: &str, cut_off: bool) -> String {
    match cut_off {
        true => format!(
            "This call was not run: its arguments were cut off at max_tokens ({reason}). Send smaller arguments, \
             for example by writing a large file in several pieces."
        ),
        false => format!(
            "This call was not run: its arguments cannot be used ({reason}). Send a JSON object that fits the \
             tool's input schema."
        ),
    }
}

pub(crate) fn unknown_tool(name: &str, known: &[String]) -> String {
    let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
    if known.is_empty() {
        return format!("This call was not run: there is no tool `{shown}`; this session has no tools.");
    }
    let hint = nearest(&shown, known).map(|n| format!(" Did you mean `{n}`?")).unwrap_or_default();
    let known: Vec<String> = known.iter().map(|n| format!("`{n}`")).collect();
    format!("This call was not run: there is no tool `{shown}`.{hint} Known tools: {}.", known.join(", "))
}

pub(crate) fn denied_by_policy(name: &str) -> String {
    format!("This call was not run: policy does not allow `{name}` here.")
}

pub(crate) fn denied_by_client(message: Option<&str>) -> String {
    match message {
        Some(message) if !message.trim().is_empty() => {
            format!("This call was not run: the user denied it, saying: {message}")
        }
        _ => "This call was not run: the user denied it.".to_owned(),
    }
}

pub(crate) fn output_rejected(error: &str) -> String {
    format!(
        "Your final answer does not satisfy the output schema: {error}. Answer again with JSON of that schema and \
         nothing else."
    )
}

/// The known name that `name` was probably meant to be: at most a third of it differs, or two letters changed places.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let length = wanted.chars().count();
    let allowed = (length / 3).max(length.min(4) / 2);
    let distances = known.iter().map(|k| (distance(&wanted, &k.to_lowercase()), k.as_str()));
    distances.filter(|(d, _)| *d <= allowed).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cheapest = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cheapest);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "bash"), 4);
        assert_eq!(distance("bash", "bash"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn an_unknown_tool_is_told_the_nearest_name_and_all_of_them() {
        let known = names(&["bash", "read", "write"]);
        assert_eq!(
            unknown_tool("Reed", &known),
            "This call was not run: there is no tool `Reed`. Did you mean `read`? Known tools: `bash`, `read`, `write`."
        );
        assert_eq!(
            unknown_tool("browse", &known),
            "This call was not run: there is no tool `browse`. Known tools: `bash`, `read`, `write`."
        );
        assert!(unknown_tool("bash", &[]).ends_with("this session has no tools."));
    }

    #[test]
    fn a_name_without_end_is_shortened() {
        assert!(unknown_tool(&"x".repeat(100_000), &names(&["bash"])).len() < 300);
    }
}
