//! The vertical axis of a picture of numbers: a range that a few far-off values do not flatten, and round ticks on it. Values
//! may be of any finite size.

/// Values below and above which a curve is cut off at the edge: a share of all, and one at least.
const CUT: usize = 50;
/// Fewer values have no far-off ones.
const FEW: usize = 10;
/// How many times as far as all others lie apart a value must lie from them to be left out.
const FAR: f64 = 3.0;
/// Ticks, about.
const TICKS: f64 = 5.0;

/// A range of values, `low` < `high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// A range for these values; what is not finite does not count.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.filter(|y| y.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most)) = (values.first(), values.last()) else { return Self { low: 0.0, high: 1.0 } };
        let cut = if values.len() < FEW { 0 } else { (values.len() / CUT).max(1) };
        let (inner_low, inner_high) = (values[cut], values[values.len() - 1 - cut]);
        // Halves: a difference of finite numbers may not be finite.
        let half = inner_high / 2.0 - inner_low / 2.0;
        let far = |gap: f64| half > 0.0 && gap > FAR * half;
        let room = 0.2 * half;
        let low = if far(inner_low / 2.0 - least / 2.0) { inner_low - room } else { least };
        let high = if far(most / 2.0 - inner_high / 2.0) { inner_high + room } else { most };
        Self { low, high }.widened()
    }

    /// A range with a length, where all values are the same.
    fn widened(self) -> Self {
        let Self { low, high } = self;
        if high > low {
            return self;
        }
        if low == 0.0 {
            return Self { low, high: 1.0 };
        }
        let room = low.abs() / 2.0;
        let bounded = |y: f64| y.clamp(-f64::MAX, f64::MAX);
        let wide = Self { low: bounded(low - room), high: bounded(high + room) };
        match (wide.high > wide.low, low > 0.0) {
            (true, _) => wide,
            // Too small for a half.
            (false, true) => Self { low: 0.0, high },
            (false, false) => Self { low, high: 0.0 },
        }
    }

    /// Where a value lies: 0 at the lower end and 1 at the upper; values beyond an end lie there.
    pub fn place(&self, y: f64) -> f64 {
        // In units of the larger end, so that nothing overflows.
        let unit = self.low.abs().max(self.high.abs());
        let (low, high) = (self.low / unit, self.high / unit);
        ((y.clamp(self.low, self.high) / unit - low) / (high - low)).clamp(0.0, 1.0)
    }

    /// Whether a value lies beyond an end.
    pub fn is_beyond(&self, y: f64) -> bool {
        y < self.low || y > self.high
    }

    /// Round values with their places and texts; the two ends where there are none.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let ends = || [self.low, self.high].map(|y| (self.place(y), format!("{y:.2e}"))).to_vec();
        let step = match round((self.high / TICKS) - (self.low / TICKS)) {
            Some(step) => step,
            None => return ends(),
        };
        let (first, last) = ((self.low / step).ceil(), (self.high / step).floor());
        if !(last - first >= 0.0 && last - first < 4.0 * TICKS) {
            return ends();
        }
        let count = (last - first) as usize + 1;
        let tick = |i: usize| {
            let y = (first + i as f64) * step;
            (self.place(y), text(y, step, self.low.abs().max(self.high.abs())))
        };
        (0..count).map(tick).collect()
    }
}

/// 1, 2 or 5 times a power of ten, near `step`.
fn round(step: f64) -> Option<f64> {
    let power = step.log10().floor();
    let ten = 10_f64.powf(power);
    if !(step.is_normal() && ten.is_normal()) {
        return None;
    }
    let times = match step / ten {
        x if x < 1.5 => 1.0,
        x if x < 3.0 => 2.0,
        x if x < 7.0 => 5.0,
        _ => 10.0,
    };
    let rounded = times * ten;
    rounded.is_finite().then_some(rounded)
}

/// A number with as many digits as ticks of that step need; `largest` is the largest on the axis.
fn text(y: f64, step: f64, largest: f64) -> String {
    if y == 0.0 {
        return "0".to_string();
    }
    // A step of 0.2 is a little less than its text says.
    let power = |x: f64| (x.log10() + 1e-9).floor() as i32;
    if step >= 1e-4 && largest < 1e6 {
        let text = format!("{y:.0$}", (-power(step)).max(0) as usize);
        return if text.trim_matches(['-', '0', '.']).is_empty() { "0".to_string() } else { text };
    }
    let digits = (power(y.abs()) - power(step)).clamp(0, 6) as usize;
    format!("{y:.digits$e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Scale {
        Scale::of(values.iter().copied())
    }

    #[test]
    fn one_far_off_value_does_not_flatten_the_rest() {
        let mut values: Vec<f64> = (0..40).map(|i| 0.5 + 0.01 * f64::from(i)).collect();
        for outlier in [1e3, -1e3, 1e300, -f64::MAX] {
            values.push(outlier);
            let scale = of(&values);
            assert!(
                scale.is_beyond(outlier) && !scale.is_beyond(0.52) && !scale.is_beyond(0.87),
                "{outlier}: {scale:?}"
            );
            assert!(scale.place(0.8) - scale.place(0.6) > 0.3, "{outlier}: {scale:?}");
            values.pop();
        }
        let scale = of(&values);
        assert_eq!((scale.place(values[0]), scale.place(values[39])), (0.0, 1.0), "nothing is cut off of an even rise");
    }

    #[test]
    fn few_values_and_steps_of_a_curve_are_all_shown() {
        assert!(!of(&[0.0, 0.1, 0.2, 50.0]).is_beyond(50.0));
        // A flag that is up once.
        let mut flag = vec![0.0; 99];
        flag.push(1.0);
        assert!(!of(&flag).is_beyond(1.0));
    }

    #[test]
    fn values_of_any_size_have_a_place_and_ticks() {
        let sizes: [&[f64]; 9] = [
            &[f64::MAX, -f64::MAX],
            &[f64::MAX],
            &[-f64::MAX],
            &[5e-324],
            &[-5e-324],
            &[5e-324, 1e-323],
            &[0.0],
            &[1.0, 1.0 + f64::EPSILON],
            &[f64::NAN, f64::INFINITY],
        ];
        for values in sizes {
            let scale = of(values);
            for y in values.iter().filter(|y| y.is_finite()) {
                assert!((0.0..=1.0).contains(&scale.place(*y)), "{values:?}: {}", scale.place(*y));
            }
            let ticks = scale.ticks();
            assert!((1..=20).contains(&ticks.len()), "{values:?}: {ticks:?}");
            assert!(ticks.iter().all(|(place, text)| (0.0..=1.0).contains(place) && text.len() < 14), "{ticks:?}");
        }
    }

    #[test]
    fn ticks_are_round_and_short() {
        let texts = |values: &[f64]| of(values).ticks().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        assert_eq!(texts(&[0.0, 1.0]), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(&[-2.0, 2.0]), ["-2", "-1", "0", "1", "2"]);
        assert_eq!(texts(&[0.0, 2e-4]), ["0", "5e-5", "1.0e-4", "1.5e-4", "2.0e-4"]);
        assert_eq!(texts(&[0.0, 250.0]), ["0", "50", "100", "150", "200", "250"]);
        assert_eq!(texts(&[1e9, 2e9]), ["1.0e9", "1.2e9", "1.4e9", "1.6e9", "1.8e9", "2.0e9"]);
    }
}
