// Elementwise functions on T (f32 or vec4<f32>), appended to every generated kernel.
// WGSL lets a driver assume that no infinity occurs, so each keeps its intermediate values finite.

//<type
alias T = f32;
//>

// tanh of anything beyond 10 is 1 in f32; some drivers overflow inside tanh before that. Others make it from differences of powers, with a
// constant absolute error: near zero the series keeps the digits (truncation 6e-8 relative at 0.2).
fn safe_tanh(x: T) -> T {
    let s = x * x;
    let near = x * (T(1.0) - s * (T(0.33333334) - s * (T(0.13333334) - s * T(0.053968254))));
    return select(tanh(clamp(x, T(-10.0), T(10.0))), near, abs(x) < T(0.2));
}

// 1 / (1 + e^-x); e^87 is the last finite power.
fn logistic(x: T) -> T {
    return T(1.0) / (T(1.0) + exp(-clamp(x, T(-87.0), T(87.0))));
}

// log(1 + e^x) = max(x, 0) + log(1 + e), e = e^-|x|. For small e the series keeps the digits that 1 + e would round away.
fn softplus(x: T) -> T {
    let e = exp(-min(abs(x), T(87.0)));
    let series = e * (T(1.0) - e * (T(0.5) - e * (T(0.33333334) - e * T(0.25))));
    return max(x, T(0.0)) + select(log(T(1.0) + e), series, e < T(0.02));
}

// Error function. |x| < 0.5: Maclaurin series (truncation 3e-8 relative); else Abramowitz and Stegun 7.1.26 (1.5e-7 absolute).
fn erf(x: T) -> T {
    let s = x * x;
    let near = x * (T(1.1283792) - s * (T(0.37612638) - s * (T(0.11283792) - s * (T(0.026866171) - s * (T(0.0052239776) - s * T(0.00085483271))))));
    let a = min(abs(x), T(9.0));
    let t = T(1.0) / (T(1.0) + T(0.3275911) * a);
    let p = t * (T(0.254829592) + t * (T(-0.284496736) + t * (T(1.421413741) + t * (T(-1.453152027) + t * T(1.061405429)))));
    let far = sign(x) * (T(1.0) - p * exp(-a * a));
    return select(far, near, a < T(0.5));
}
