//! What stands below the help of each command.

pub(crate) const EXAMPLES: &str = "\
Examples:
  osculant devices
  osculant doctor
  osculant train digits-mlp --optimizer newton-cg --work 60
  osculant train fashion-mlp --optimizer adam --set batch=256 --checkpoint adam.safetensors
  osculant train fashion-mlp --resume adam.safetensors --work 20 --checkpoint adam.safetensors
  osculant compare digits-mlp --optimizers sgd,adam,newton-cg --seeds 3 --tune --out out/digits
  osculant init experiment.toml
  osculant train experiment.toml --work 20
  osculant show digits-mlp --phase hvp
  osculant statistics digits-mlp --out out/statistics
  osculant bench --quick

Environment:
  OSCULANT_ADAPTER   part of the name of the adapter to take
  OSCULANT_BACKEND   vulkan, metal, dx12 or gl
  OSCULANT_TUNING    file written by `osculant tune`";

pub(crate) const OPTIONS: &str = "\
Options of the optimizers (--set KEY=VALUE):
  all        batch              examples per mini-batch, or all
             growth             FACTOR:EPOCHS:MOST: batches grow by the factor after so many epochs each; or none
             decay              how steps get shorter until --work is done: constant, or linear or cosine to 0, or to a
                                factor as in linear:0.1 (learning rates, step lengths, the first factor of line searches)
             averaging          decay of an average of iterates, with which the network is evaluated: 0: none; 1: their mean
  sgd        learning-rate, momentum, nesterov, weight-decay
  debiased-sgd  strategy        decoupled: the first folds of a batch make directions, the others the steps along them;
                                cross-fit: that from each fold on, averaged (here of 2 folds)
             folds, directions  number of folds, and of those that make directions; directions=others: all but one
             damping            added to the curvature
             max-step-length    the longest step length
             factor             multiplies it after that
             backwards          whether to go backwards where slopes disagree: true or false
  adam       learning-rate, beta1, beta2, epsilon
  adamw      those of adam, weight-decay
  muon       learning-rate, momentum, nesterov, weight-decay   of matrices
             matrices           all, or hidden: those but the first and the last
             adam-learning-rate  of all else
  soap       those of adamw, and
             interval           steps from one eigenbasis to the next
             largest            sides of matrices that are longer are not rotated
  shampoo    those of adamw, and
             ridge              added to the eigenvalues of a factor, as a part of the largest
             interval, largest  as for soap, of roots
  lbfgs      history            pairs of steps and changes of gradients that are remembered
             first-step         length of the first step that is tried
             armijo, wolfe      constants of the line search: fall of the loss, and of the slope
             max-trials         gradients of a line search
  kfac       step-length        factor on the step that the quadratic along the direction wants
             stretch            how much longer a direction is made at most, where its slope is below the average
             damping            in means of each factor's eigenvalues, as its square
             momentum, memory   what a step leaves of the averages of steps, and of factors, slopes and curvatures
             interval           most steps from one refresh of these to the next
             largest            order up to which a factor is a matrix, as a part of the batch
             rank               eigenvectors known of a larger one of inputs, as a part of the batch; of outputs, and with 0: the
                                diagonal
             approximation      kfac; foof: the factors of inputs alone; or ekfac: with eigenvalues that are measured, of layers with
                                two matrices
             estimate           what factors of outputs are made of: mixture, of the columns of a root of the output Hessian by random
                                signs; exact, of all columns; empirical, of gradients
  spring     rows               root-losses: one row for each example; probe: of a random mixture of its outputs' curvature;
                                exact: for each output
             step-length        part of the solution that a step takes
             damping            in means of the Gram matrix's diagonal
             momentum           part of the last solution that the next one starts from
             longest-step       a longer step is made that short
  levenberg-marquardt  rows     as for spring, but not probe
             damping, damping-decrease         first damping, and its factor after a good step
             scaling            what it is measured in: mean, diagonal (each parameter's own curvature) or identity
             max-attempts       dampings that are tried before a step is refused
             acceleration       geodesic acceleration where twice its length is at most this part of the step; 0: none
  newton-cg  max-iterations     cap on conjugate gradient iterations per step
             damping            first value of the Levenberg-Marquardt damping
             damping-decrease   its factor after a good step; 1 keeps it fixed
             curvature          ggn, or hessian (with a trust region)
             radius             first radius of the trust region
             preconditioner     none, or fisher (diagonal of the empirical Fisher matrix)
             preconditioner-exponent
             warm-start         fraction of the last solution at which the next solve starts
             backtracking       whether to go back to earlier iterates: true or false
             progress-tolerance, residual-tolerance    when to stop conjugate gradients
             armijo, shrink     constants of the line search
  nystrom-newton-cg  those of newton-cg without the preconditioner and radius, and
             rank, refresh      of the Nystrom approximation: eigenpairs, and steps until the next
  kronecker-newton-cg  those of newton-cg without the preconditioner and radius, and
             refresh            steps from one approximation to the next
             largest, rank      order up to which a factor is a matrix; eigenvectors known of a larger one of inputs
             estimate           as for kfac
  decoupled-newton-cg  those of newton-cg without curvature, preconditioner, radius and backtracking, and
             strategy           as for debiased-sgd, of any number of folds; or single: all examples make both
             folds, directions  as for debiased-sgd
             shrinking          whether steps shrink with the noise of their slopes: true or false
             acceptance         part of the batch that only judges; 0: the whole batch judges
             dealing            how parts share the rows, with strategy decoupled: disjoint, overlapping or with-replacement
  lrsfn      rank               eigenpairs of the curvature that are captured
             oversampling, power-iterations    of the eigensolver
             refresh            steps from one computation of eigenpairs to the next
             base               what moves the rest: gradient, sgd or adam
             learning-rate, momentum           of that base; momentum for sgd
             step-length, step-length-beyond   in the captured space, and beyond it with base gradient
             automatic          Lanczos steps that measure the step length, with base gradient; 0: none
             damping, damping-decrease         least damping, and its factor after a good step
             curvature          hessian or ggn
             strategy           as for decoupled-newton-cg; directions are eigenvectors, and cross-fit needs base gradient
             folds, directions  as for debiased-sgd
             curvature-part     part of the batch that eigenpairs come from, with strategy single
             acceptance, dealing               as above
             rank-rule          fixed; residual (of random vectors) or noise (over sub-batches) lower the rank
             rank-threshold     largest relative residual, or smallest ratio of signal to noise
             average            decay of a running average of the curvature; 0: none
             storage            of eigenvectors: full or half
  lrsfn-paper  rank, step-length, damping      all fixed, eigenpairs anew in every step
             curvature-batch    part of the batch that is set apart for them";

pub(crate) const DOCTOR_EXAMPLES: &str = "\
Examples:
  osculant doctor
  osculant doctor --adapter llvmpipe --json doctor.json

Tried are long loops, NaN and infinities, rounding errors of sums and products, errors of functions,
subgroup operations and workgroup memory; what differs from IEEE 754 or WGSL is shown and explained.";

pub(crate) const STRATEGIES_EXAMPLES: &str = "\
Examples:
  osculant analyze strategies digits-mlp --batches 128,384 --work 40 --out out/strategies
  osculant analyze strategies fashion-mlp --method lrsfn --batches 256 --work 4 --out out/lrsfn

All strategies see the same data in the same order and do the same work: a step of cross-fitting has twice
the products of a single one. Damping, and iterations or step length, are the best of a grid for each, judged on a
validation part of the training rows by the mean over other seeds; then every strategy runs from each seed. Means
with 95 % confidence intervals. Written to the folder of --out: strategies.json, strategies.png and strategies.svg.";

pub(crate) const BIAS_EXAMPLES: &str = "\
Examples:
  osculant analyze bias digits-mlp --batch 64 --out out/bias
  osculant analyze bias fashion-mlp --batch 256 --losses 1,0.5 --directions cg --out out/bias

Trains (SGD with its defaults, or --optimizer) to each of the losses. There, for directions made of a batch A
(top eigenvectors of the Gauss-Newton matrix plus 0.001, or those of conjugate gradients): slope and
curvature on A, on an independent batch B, and on all data. And the loss on all data along the iterates of
conjugate gradients on A, on A and B together, with directions of A and steps of B (decoupled), with both
exchanges averaged (cross-fit), and that shrunk by the noise of the slopes (shrinkage).

Written to the folder of --out: bias.json, bias-directions.csv, bias-path.csv, bias.png and bias.svg.";

pub(crate) const SADDLE_EXAMPLES: &str = "\
Examples:
  osculant analyze saddle --out out/saddle

From near the monkey saddle, and from near the zero of the network of digits-mlp, where all weight
gradients vanish: steps on the full data until the loss has come half of the way, medians over the seeds,
with the best options of a grid for each optimizer. Written to the folder of --out: saddle.json.";

pub(crate) const SPECTRUM_EXAMPLES: &str = "\
Examples:
  osculant analyze spectrum digits-mlp --out out/spectrum
  osculant analyze spectrum digits-mlp --train 5 --optimizer adam --out out/spectrum
  osculant analyze spectrum fashion-mlp --checkpoint adam.safetensors --batch all --out out/spectrum
  osculant analyze spectrum experiment.toml --train 10 --out out/spectrum

Each probe is a run of Lanczos' method from a random vector with full re-orthogonalization. Eigenvalues are
the Ritz values of the first probe whose residual is below a thousandth of the largest; the density is the
mean of all probes' quadratures, smoothed.

Written to the folder of --out: spectrum.json, and the picture as spectrum.png and spectrum.svg.";

pub(crate) const MICHALEWICZ_EXAMPLES: &str = "\
Examples:
  osculant michalewicz --ranks 10,30,50 --modes paper,default --seeds 10 --out out/michalewicz

The function of Michalewicz in 100 dimensions, 100 steps from standard normal points: gradient descent,
Newton's method, exact saddle-free Newton, and the low-rank method by rank. Written to the folder of --out:
michalewicz.json.";

pub(crate) const SHOW_EXAMPLES: &str = "\
Examples:
  osculant show digits-mlp --phase hvp
  osculant show fashion-mlp --phase block --width 32 --time
  osculant show experiment.toml --phase gradient
  osculant show digits-mlp --checkpoint adam.safetensors --locate";

pub(crate) const STATISTICS_EXAMPLES: &str = "\
Examples:
  osculant statistics digits-mlp --out out/statistics
  osculant statistics digits-mlp --quantity variance,ggn-diagonal --rows 256 --out out/statistics
  osculant statistics digits-mlp --checkpoint adam.safetensors --quantity ggn-gram --out out/gram
  osculant statistics experiment.toml --quantity hessian-diagonal --out out/diagonal

With weights w = 1/n of the n rows, gradients g of their losses, Jacobians J of the network's C outputs, and
roots S of the Hessians of the losses in them:

  gradient                     sum of w g
  per-example-gradients        w g of each row, [n, parameter]
  squared-norms                |w g|^2 of each row, [n], for each parameter
  inner-products               of all w g with one another, [n, n], for each parameter
  square-sum                   sum of (w g)^2
  second-moment, variance      mean of g^2, and of (g - mean)^2
  ggn-diagonal                 diagonal of the Gauss-Newton matrix, sum of w J^T S S^T J
  per-example-ggn-diagonals    what each row adds to it, [n, parameter]
  ggn-root                     sqrt(w) J^T S, [C, n, parameter]
  ggn-gram                     inner products of the root's columns, [C n, C n]
  kronecker-factors            A (rows, with a 1 for the bias) and B (columns), from all columns of S
  empirical-kronecker-factors  the same from the gradients of the losses
  sampled-...                  from one random mixture of the columns of S: a C-th of the work, no bias
  hessian-diagonal             exact, with the l2 term: as many products as parameters, for small networks

docs/statistics.md has formulas, factors and costs beside BackPACK's.";

pub(crate) const INIT_EXAMPLES: &str = "\
Examples:
  osculant init
  osculant init houses/experiment.toml --force

The file has a comment at every key; docs/command-line.md lists all keys. It runs as it stands:
osculant train experiment.toml, or osculant compare experiment.toml --out out/fruit.";

pub(crate) const BENCH_EXAMPLES: &str = "\
Examples:
  osculant bench --quick
  osculant bench --out out/bench
  osculant bench --problem digits-mlp --problem wide-mlp --tuning tuning.json

What is measured: the adapter's own limits (multiply-adds, copies), matrix products and vector
operations as fractions of them, and for each network a gradient, Hessian and Gauss-Newton products,
blocks of 32 products, and what conjugate gradients add to a product.

Times are the host's, from submission to the end of the wait, as medians; what is compared takes turns.
Short work is repeated within a submission, so that what a submission costs is a small part. Other work
on the machine shows in the spread (interquartile range over median): repeat where it is large.

Written to the folder of --out: bench.json, with all figures and their spreads.";

pub(crate) const TUNE_EXAMPLES: &str = "\
Examples:
  osculant tune --quick
  osculant tune --out tuning.json
  osculant train digits-mlp --optimizer newton-cg --tuning tuning.json

The file holds for this adapter, this driver and this version of osculant. With the same file a
program has the same bits every time; another file may round differently.";

pub(crate) const TRAIN_EXAMPLES: &str = "\
Examples:
  osculant train digits-mlp --optimizer adam --seed 1 --out out/adam
  osculant train digits-mlp --optimizer newton-cg --set batch=all --set max-iterations=30
  osculant train mnist-mlp --optimizer sgd --work 2 --checkpoint sgd.safetensors
  osculant train mnist-mlp --resume sgd.safetensors --work 4 --checkpoint sgd.safetensors
  osculant train experiment.toml --optimizer adam --set learning-rate=0.003

A FILE.toml has data, a network and optimizers of one's own: osculant init writes one. What is given on the
command line holds in place of what the file says.";

pub(crate) const COMPARE_EXAMPLES: &str = "\
Examples:
  osculant compare digits-mlp --optimizers sgd,adam,newton-cg --seeds 3 --tune --out out/digits
  osculant compare fashion-mlp --optimizers adam,newton-cg --work 5 --out out/fashion \\
      --set adam.learning-rate=0.002 --set newton-cg.batch=2048
  osculant compare experiment.toml --seeds 5 --out out/experiment

Written to the folder of --out: report.html, report.json, and the curves as loss-over-work.png,
loss-over-seconds.png and the same as .svg.";
