//! JSON for people and diffs: one member a line, lists of numbers on one line.

use serde_json::Value;

/// The text of a value, with a line break at its end.
pub fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, 0);
    out.push('\n');
    out
}

fn write(out: &mut String, value: &Value, depth: usize) {
    let indent = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    match value {
        Value::Object(members) if !members.is_empty() => {
            out.push('{');
            for (at, (name, member)) in members.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                indent(out, depth + 1);
                out.push_str(&Value::String(name.clone()).to_string());
                out.push_str(": ");
                write(out, member, depth + 1);
            }
            indent(out, depth);
            out.push('}');
        }
        Value::Array(items) if items.iter().any(|item| item.is_object()) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                indent(out, depth + 1);
                write(out, item, depth + 1);
            }
            indent(out, depth);
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_of_numbers_stay_on_a_line() {
        let value = json!({"a": [1, [2, 3.5]], "b": {"c": [], "d": {}}, "e": [{"f": "\""}, {}]});
        let text = pretty(&value);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        let expected = "{\n  \"a\": [1,[2,3.5]],\n  \"b\": {\n    \"c\": [],\n    \"d\": {}\n  },\n  \"e\": [\n    {\n      \"f\": \"\\\"\"\n    },\n    {}\n  ]\n}\n";
        assert_eq!(text, expected);
    }
}
