// Elementwise functions on T (f32 or vec4<f32>), appended to every generated kernel; U are its bits.
// WGSL lets a driver assume that no infinity and no NaN occurs, so each keeps its intermediate values finite, recognizes a NaN by its bits
// and returns it.

//<type
alias T = f32;
alias U = u32;
//>

// y, or x where that is a NaN
fn keep_nan(y: T, x: T) -> T {
    return select(y, x, (bitcast<U>(x) & U(0x7fffffffu)) > U(0x7f800000u));
}

// The natural logarithm; of infinity itself, of 0 -inf, of NaNs and negative numbers a NaN: some drivers make finite numbers of all these.
fn logarithm(x: T) -> T {
    let bits = bitcast<U>(x);
    let size = bits & U(0x7fffffffu);
    let undefined = (bits > U(0x80000000u)) | (size > U(0x7f800000u));
    let of_numbers = select(log(x), x, size == U(0x7f800000u));
    let with_zero = select(of_numbers, bitcast<T>(bits | U(0xff800000u)), size == U(0u));
    return select(with_zero, bitcast<T>(bits | U(0x7fc00000u)), undefined);
}

// tanh of anything beyond 10 is 1 in f32; some drivers overflow inside tanh before that. Others make it from differences of powers, with a
// constant absolute error: near zero the series keeps the digits (truncation 6e-8 relative at 0.2).
fn safe_tanh(x: T) -> T {
    let s = x * x;
    let near = x * (T(1.0) - s * (T(0.33333334) - s * (T(0.13333334) - s * T(0.053968254))));
    return keep_nan(select(tanh(clamp(x, T(-10.0), T(10.0))), near, abs(x) < T(0.2)), x);
}

// 1 / (1 + e^-x) = e^min(x, 0) / (1 + e), e = e^-|x|; e^-104 is 0 in f32.
fn logistic(x: T) -> T {
    let e = exp(-min(abs(x), T(104.0)));
    return keep_nan(select(T(1.0), e, x < T(0.0)) / (T(1.0) + e), x);
}

// log(1 + x). Where the sum would round digits away, -0.29 < x < 0.42, the polynomial of Cephes (logf.c; 8e-8 relative), whose terms no
// reordering can make cancel.
fn log1p(x: T) -> T {
    let s = x * x;
    let p = T(0.33333331174) + x * (T(-0.24999993993) + x * (T(0.20000714765) + x * (T(-0.16668057665) + x * (T(0.14249322787)
        + x * (T(-0.12420140846) + x * (T(0.11676998740) + x * (T(-0.11514610310) + x * T(0.070376836292))))))));
    let near = x + s * (T(-0.5) + x * p);
    return select(logarithm(T(1.0) + x), near, (x > T(-0.29)) & (x < T(0.42)));
}

// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
fn softplus(x: T) -> T {
    return keep_nan(max(x, T(0.0)) + log1p(exp(-min(abs(x), T(104.0)))), x);
}

// (e^x - 1 - x) / x^2 for |x| < 0.5: its series (truncation 4e-8 relative)
fn rest_of_exp(x: T) -> T {
    return T(0.5) + x * (T(0.16666667) + x * (T(0.041666668) + x * (T(0.0083333338) + x * (T(0.0013888889) + x * (T(1.9841270e-4) + x * T(2.4801588e-5))))));
}

// e^x - 1
fn expm1(x: T) -> T {
    return keep_nan(select(exp(x) - T(1.0), x + x * x * rest_of_exp(x), abs(x) < T(0.5)), x);
}

// e^x - 1 - x; beyond 104 the power is infinite, and nothing is subtracted from infinity but a number.
fn expm1mx(x: T) -> T {
    let far = exp(x) - (T(1.0) + min(x, T(104.0)));
    return keep_nan(select(far, x * x * rest_of_exp(x), abs(x) < T(0.5)), x);
}

// Error function. |x| < 0.5: Maclaurin series (truncation 3e-8 relative); else Abramowitz and Stegun 7.1.26 (1.5e-7 absolute).
fn erf(x: T) -> T {
    let s = x * x;
    let near = x * (T(1.1283792) - s * (T(0.37612638) - s * (T(0.11283792) - s * (T(0.026866171) - s * (T(0.0052239776) - s * T(0.00085483271))))));
    let a = min(abs(x), T(9.0));
    let t = T(1.0) / (T(1.0) + T(0.3275911) * a);
    let p = t * (T(0.254829592) + t * (T(-0.284496736) + t * (T(1.421413741) + t * (T(-1.453152027) + t * T(1.061405429)))));
    let far = sign(x) * (T(1.0) - p * exp(-a * a));
    return keep_nan(select(far, near, a < T(0.5)), x);
}

// sin(x + quarters pi/2). WGSL asks of sin and cos no more than 2^-11 absolute, and some drivers give no more (2e-4), so: subtract the
// nearest multiple of pi/2, in three parts that keep the digits up to |x| = 1e4 (beyond, the result is any number in +-1), then the
// polynomials of Cephes on +-pi/4 (1e-7).
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
    let y = select(T(1.0), T(-1.0), back > T(1.5)) * select(sine, cosine, odd > T(0.5));
    // Of infinities and NaNs: their bits and those of a NaN.
    let special = (bitcast<U>(x) & U(0x7f800000u)) == U(0x7f800000u);
    return select(y, bitcast<T>(bitcast<U>(x) | U(0x7fc00000u)), special);
}

fn sine(x: T) -> T {
    return quarter_turns(x, T(0.0));
}

fn cosine(x: T) -> T {
    return quarter_turns(x, T(1.0));
}
