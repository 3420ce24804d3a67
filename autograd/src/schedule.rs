/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// Half a cosine, to zero.
    Cosine,
    /// A straight line, to zero.
    Linear,
    /// It does not fall.
    Constant,
}

/// A learning rate for each step: a linear warm-up, then a [`Curve`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f32,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps in all.
    pub total: u64,
    /// What follows the warm-up.
    pub curve: Curve,
}

impl Schedule {
    /// The rate of step `step`, counted from 1. As in transformers' `get_cosine_schedule_with_warmup`, but no step is
    /// spent at a rate of zero: the warm-up ends at step `warmup`, and the last step still learns.
    pub fn rate(&self, step: u64) -> f32 {
        let peak = f64::from(self.peak);
        if step <= self.warmup {
            return (peak * step as f64 / self.warmup as f64) as f32;
        }
        let left = self.total.saturating_sub(self.warmup).max(1) as f64;
        let gone = ((step - self.warmup - 1) as f64 / left).min(1.0);
        let share = match self.curve {
            Curve::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * gone).cos()),
            Curve::Linear => 1.0 - gone,
            Curve::Constant => 1.0,
        };
        (peak * share) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_rises_to_the_peak_and_the_rest_falls_to_near_zero() {
        for curve in [Curve::Cosine, Curve::Linear] {
            let s = Schedule { peak: 2.0, warmup: 3, total: 103, curve };
            let rates: Vec<f32> = (1..=103).map(|i| s.rate(i)).collect();
            assert_eq!(rates[..3], [2.0 / 3.0, 4.0 / 3.0, 2.0]);
            assert_eq!(rates[3], 2.0);
            assert!(rates[3..].windows(2).all(|w| w[1] < w[0]), "{rates:?}");
            assert!(rates[102] > 0.0 && rates[102] < 0.03);
            assert_eq!(s.rate(104), 0.0);
        }
        let s = Schedule { peak: 1.0, warmup: 0, total: 4, curve: Curve::Constant };
        assert_eq!([s.rate(1), s.rate(4), s.rate(9)], [1.0; 3]);
    }

    #[test]
    fn halfway_values_follow_the_formulas() {
        let s = Schedule { peak: 1.0, warmup: 0, total: 8, curve: Curve::Cosine };
        assert!((s.rate(5) - 0.5).abs() < 1e-7);
        assert!((s.rate(3) - (0.5 + 0.5 * std::f32::consts::FRAC_1_SQRT_2)).abs() < 1e-7);
    }
}
