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

// sin(x + quarters pi/2). WGSL asks of sin and cos no more than 2^-11 absolute, and some drivers give no more (2e-4), so: subtract the nearest
// multiple of pi/2, in three parts that keep the digits up to |x| = 1e4 (beyond, the result is any number in +-1), then the polynomials of Cephes on +-pi/4 (1e-7).
fn quarter_turns(x: T, quarters: T) -> T {
    let k = round(x * T(0.63661977));
    let remainder = ((x - k * T(1.5703125)) - k * T(4.8375129699707031e-4)) - k * T(7.549789954891882e-8);
    let r = clamp(remainder, T(-0.8), T(0.8));
    let z = r * r;
    let sine = r + r * z * ((T(-1.9515295891e-4) * z + T(8.3321608736e-3)) * z - T(0.16666654611));
    let cosine = T(1.0) - T(0.5) * z + z * z * ((T(2.443315711809948e-5) * z - T(1.388731625493765e-3)) * z + T(0.04166664568298827));
    let turn = k + quarters;
    let odd = turn - T(2.0) * floor(T(0.5) * turn);
    let back = turn - T(4.0) * floor(T(0.25) * turn);
    return select(T(1.0), T(-1.0), back > T(1.5)) * select(sine, cosine, odd > T(0.5));
}

fn sine(x: T) -> T {
    return quarter_turns(x, T(0.0));
}

fn cosine(x: T) -> T {
    return quarter_turns(x, T(1.0));
}
