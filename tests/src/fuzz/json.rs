//! JSON values that mean the same.

use serde_json::Value;

/// What has a form in JSON.
pub trait Json: serde::Serialize + serde::de::DeserializeOwned {}

impl<T: serde::Serialize + serde::de::DeserializeOwned> Json for T {}

/// Equal, but for what the last digit of a fraction may lose when it is read.
pub fn close(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) if one.is_f64() => {
            let (one, two) = (one.as_f64().unwrap_or(0.0), two.as_f64().unwrap_or(f64::NAN));
            (one - two).abs() <= one.abs() * 1e-12
        }
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| close(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            let same =
                |(key, one): (&String, &Value)| two.get(key).is_some_and(|two| close(one, two));
            one.len() == two.len() && one.iter().all(same)
        }
        _ => one == two,
    }
}
