"""The contracts: what a network, penalty, intervention, method, stream and diagnostic are.

All are plain `NamedTuple`s of pure functions: arrays in, arrays out, no hidden state. Nothing of pliant but the layer
graph (`pliant.wiring`, whose names are here as well) is imported, so every folder can import this file.

Conventions. `step` counts optimizer updates from 1 and is the same for all seeds; a period `x_every` fires when
`step % x_every == 0`. Keys are typed (`jax.random.key`). Dense kernels are (in, out), images are NHWC.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, NoReturn, TypeAlias

import jax
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from pliant.errors import UserError
from pliant.wiring import (  # noqa: F401 # the layer graph is to be had here as well
    ALL_BUT_NORMS,
    ROLES,
    Feed,
    Head,
    HiddenLayer,
    Role,
    Slot,
    Traits,
    Wiring,
    by_path,
    leaf_path,
)

Key: TypeAlias = PRNGKeyArray
Scalar: TypeAlias = Float[Array, ""]
Params: TypeAlias = PyTree
State: TypeAlias = PyTree


class Mean(NamedTuple):
    """A mean over something other than updates, such as finished episodes.

    Both are summed over a task, then divided; the mean of nothing is NaN.
    """

    total: Shaped[Array, ""]
    number: Int[Array, ""]
    """How many values `total` adds up."""


Info: TypeAlias = Mapping[str, Shaped[Array, ""] | Mean]
"""What is reported of one update: named scalars. Integers are summed over a task, a `Mean` is one over the task, and
other numbers are averaged over its updates."""
Features: TypeAlias = Mapping[str, Float[Array, "batch ..."]]
"""Post-activation arrays by hidden layer; units along the last axis unless the layer's `axis` says otherwise."""
Number: TypeAlias = Shaped[Array, ""] | np.number[Any] | float | int
"""A hyperparameter: a Python number, or a traced scalar inside a compiled program."""
Schedule: TypeAlias = Callable[[Any], Any]
"""A function from the number of updates so far to a number, as in optax."""


class Network(NamedTuple):
    """A network as two pure functions and its wiring."""

    init: Callable[[Key], tuple[Params, State]]
    """`init(key) -> (params, state)`; `state` is {} for a network without running statistics."""
    apply: Callable[..., tuple[Float[Array, "batch *target out"] | PyTree, Features, State]]
    """`apply(params, state, inputs, *, train, key) -> (output, features, state)`. Several outputs are a dictionary by
    name, such as {"policy": …, "value": …}."""
    wiring: Wiring


class Forward(NamedTuple):
    """The forward pass of a training batch, as penalties see it."""

    inputs: "Inputs"
    output: PyTree[Array]
    """As the network gives it: several outputs are a dictionary by name."""
    features: Features
    loss: Scalar
    """Of the task, without penalties."""
    evaluate: Callable[[Params, "Inputs"], tuple[PyTree[Array], Features]]
    """`evaluate(params, inputs) -> (output, features)`, in eval mode: for earlier copies of the parameters."""
    sample: Callable[[int], "Inputs"]
    """`sample(num_examples)`: inputs of the current task, sampled with replacement; repeated calls within one
    update return the same examples."""


class Penalty(NamedTuple):
    """A term of the loss."""

    init: Callable[[Params], State]
    loss: Callable[[Params, State, Any], tuple[Scalar, State]]
    """`loss(params, state, forward) -> (value, state)`; penalties of the weights alone also take None in place of the
    `Forward`. The value is in float32, or in the type of the parameters or outputs if that is wider. Strength 0 gives
    exactly 0 and a zero gradient."""
    switch: Callable[[Params, State], State] | None = None
    """`switch(params, state) -> state` when the task changes, before anything is reset."""


def _renamed(old: str, new: str) -> NoReturn:
    raise UserError(got=old, wanted=f"{new}, its new name", do="Rename it in your method.")


class Learned(NamedTuple):
    """The learner's current state, which interventions may rewrite."""

    params: Params
    statistics: State
    """The network's running statistics; {} if it has none."""
    optimizer: optax.OptState

    @property
    def network(self) -> NoReturn:
        """Refused: the old name of `statistics`."""
        _renamed("Learned.network", "Learned.statistics")


class Fresh(NamedTuple):
    """Functions that recreate the initial network and optimizer state."""

    init_network: Callable[[Key], tuple[Params, State]]
    """`init_network(key) -> (params, statistics)`, newly drawn. Costs an initialisation; call it inside the branch
    that needs it."""
    init_optimizer: Callable[[Params], optax.OptState]
    """The optimizer's state before the first update."""

    @property
    def network(self) -> NoReturn:
        """Refused: the old name of `init_network`."""
        _renamed("Fresh.network", "Fresh.init_network")

    @property
    def optimizer(self) -> NoReturn:
        """Refused: the old name of `init_optimizer`."""
        _renamed("Fresh.optimizer", "Fresh.init_optimizer")


Probe: TypeAlias = Callable[[Learned, Key, int], Features]
"""`probe(learned, key, num_examples)`: features of the network as it is now, in eval mode, on examples of the current
task, sampled with replacement."""


class Signals(NamedTuple):
    """What an intervention may look at after an update."""

    gradients: Params
    """Gradients of loss and penalties at the parameters before this update, as the optimizer gets them."""
    features: Features
    """Features of the training batch at the parameters before this update."""
    probe: Probe
    """Costs a forward pass; call it inside the branch that needs it."""
    fresh: Fresh


class Intervention(NamedTuple):
    """A rewrite of weights and optimizer statistics, after every update or when the task changes.

    `info` says what was done: units reset, norm moved. What `switch` says is recorded with the task that begins.
    """

    init: Callable[[Learned], State]
    update: Callable[[Key, Any, Learned, State, Signals], tuple[Learned, State, Info]] | None = None
    """`update(key, step, learned, state, signals) -> (learned, state, info)`, after every update of the optimizer."""
    switch: Callable[[Key, Any, Learned, State, Fresh], tuple[Learned, State, Info]] | None = None
    """`switch(key, index, learned, state, fresh) -> (learned, state, info)`, before task number `index` ≥ 1 begins."""
    reported: Callable[[Learned, State], tuple[Params, State]] | None = None
    """`reported(learned, state) -> (params, network state)`: the network that is evaluated, if it is not the one that
    is trained."""


class Part(NamedTuple):
    """How a part of a method is made for one network: a function that makes it, and what the method decides for it.

    The function asks for what it needs of the network by the names of its parameters: `wiring`, the layer graph;
    `mask`, True at the leaves of some roles; `output_axes`, the axes of kernels that index outputs. All its other
    parameters are hyperparameters of the method, with the same defaults.

    Example:
      >>> def decay(*, strength=0.1, power=2, mask=None): ...
      >>> part = Part(decay, roles=("matrix", "head"), fixed={"power": 1})  # its only hyperparameter is the strength
    """

    factory: Callable[..., Any]
    roles: tuple[Role, ...] = ()
    """The roles of the leaves that `mask` selects, frozen ones left out. Without roles no mask is passed."""
    fixed: Mapping[str, Any] = {}
    """Arguments that the method decides."""


class Posed(NamedTuple):
    """How a task is posed to a network."""

    objective: "Objective"
    num_outputs: int
    """Size of the output that the objective takes."""


class LogUniform(NamedTuple):
    """Numbers to tune a hyperparameter over, evenly spaced in their logarithm: 0 < low < high, both included."""

    low: float
    high: float
    is_whole: bool = False
    """Whether the numbers are rounded to whole ones, such as periods in updates."""


class Uniform(NamedTuple):
    """Numbers to tune a hyperparameter over, evenly spaced: low < high, both included."""

    low: float
    high: float


class Choice(NamedTuple):
    """Values to tune a hyperparameter over, equally often each. Numbers are in increasing order."""

    values: tuple[float | int | bool | str, ...]


Range: TypeAlias = LogUniform | Uniform | Choice
"""What a hyperparameter is tuned over."""


class Method(NamedTuple):
    """A way to train: an optimizer, a penalty, an intervention, changes to the network, or several of these.

    Each part is a function that makes it, or a `Part`. A hyperparameter that is annotated `int` or `bool`, or whose
    default is a text, shapes the compiled program; all others are traced numbers, so a sweep over them compiles once.
    """

    name: str
    summary: str
    """One line: what the method does against the loss of plasticity."""
    reference: str
    optimizer: Callable[..., optax.GradientTransformationExtraArgs] | Part | None = None
    """`optimizer(learning_rate, ...)`; None is `pliant.optimizers.adam`. Its `update` gets `step` and `key`."""
    penalty: Callable[..., Penalty] | Part | None = None
    intervention: Callable[..., Intervention] | Part | None = None
    schedule: Callable[..., Callable[[Any], Any]] | Part | None = None
    """`schedule(...) -> factor of the learning rate` as a function of the fraction of the task's updates that
    are done, in [0, 1)."""
    network: Mapping[str, Any] = {}
    """Changes to the network: keyword arguments that replace those of its factory (activation, norm, …)."""
    replaces: Mapping[str, str] = {}
    """Networks that the method replaces by another of the registry, by name."""
    wrap: Callable[..., Network] | Part | None = None
    """`wrap(network, ...) -> network` with what the method adds: parameters (auxiliary heads), state (frozen heads),
    another initialisation. Its hyperparameters shape the program."""
    targets: Callable[..., Any] | Part | None = None
    """`targets(...) -> pose`, where `pose(objective, num_outputs) -> Posed` poses the same tasks with another loss and
    another output, for streams and value functions alike. Its hyperparameters shape the program."""
    off: Mapping[str, float] = {}
    """Hyperparameters that switch the mechanism off. With them the run is bit-identical to that of `base`."""
    base: str = "adam"
    """Name of the method that is left, on the same network, when the mechanism is off."""
    space: Mapping[str, Range] = {}
    """What `pliant tune` tunes, by hyperparameter, without values that switch the mechanism off. The learning rate is
    always tuned, from 1e-4 to 1e-2 unless this says otherwise."""
    lowers: str | None = None
    """The diagnostic, or "penalty", that the mechanism lowers; the contract tests check it."""
    boundary_aware: bool = False
    """True if the method must be told when the task changes."""
    redraws: bool = False
    """True if the whole network is initialised again when the task changes."""
    remembers: str = ""
    """What the method keeps of earlier weights, useless once the whole network is initialised again; or empty."""
    alone: str = ""
    """Why the method cannot be combined with those that rewrite or remember weights; empty if it can."""


class Text(NamedTuple):
    """Inputs of an encoder-decoder: what is read, and what has been written so far."""

    source: Int[Array, "batch source"]
    """Tokens; 0 is padding."""
    decoder: Int[Array, "batch target"]
    """The target moved right by one token (teacher forcing); begins with 0."""


class TextLengths(NamedTuple):
    """The shape of a `Text`, in tokens; a network factory whose `input_shape` is annotated so takes texts."""

    source: int
    target: int


Inputs: TypeAlias = Float[Array, "batch ..."] | Text


class Batch(NamedTuple):
    """Examples as the network gets them."""

    inputs: Inputs
    targets: PyTree[Shaped[Array, "batch ..."]]
    """What the stream's objective compares the output with: classes, values or tokens."""


class Writing(NamedTuple):
    """How a network writes texts at evaluation, and how these are scored as a whole."""

    write: Callable[[Callable[[Text], Array], Batch], Int[Array, "batch target"]]
    """`write(logits, batch) -> written`, with `logits(inputs)` of the network; traced."""
    scores: Callable[[Int[np.ndarray, "texts target"], Int[np.ndarray, "texts target"]], Mapping[str, float]]
    """`scores(written, targets) -> numbers by name` over all texts of a task, on the host; metrics put train_ or test_
    before the names."""
    num_beams: int = 1
    """Width of the beam that writes; 1 is greedy."""
    at_once: int = 128
    """Texts written together: they take as many passes as the slowest of them."""


class Coded(NamedTuple):
    """Outputs that stand for distributions over values."""

    values: Callable[[Float[Array, "batch out"]], Float[Array, "batch values"]]
    """The mean of each distribution."""
    losses: Callable[[Float[Array, "batch out"], Float[Array, "batch values"]], Float[Array, " batch"]]
    """`losses(output, values) -> loss of every example` with these values to learn, all of them."""


class Objective(NamedTuple):
    """What is learned: a loss to minimise, and a score to report. Both get the task, for masks and soft labels."""

    score: str
    """Name of the score: "accuracy", "squared_error" or "token_accuracy"; metrics put online_, train_ or test_ before
    it."""
    losses: Callable[[Array, PyTree[Array], PyTree[Array]], Float[Array, " batch"]]
    """`losses(output, targets, task) -> loss of every example`; the training loss is their mean."""
    scores: Callable[[Array, PyTree[Array], PyTree[Array]], Float[Array, " batch"]] | None
    """`scores(output, targets, task) -> score of every example`; outputs that are not finite get the worst score. None
    where a batch has no score, as with agents."""
    writing: Writing | None = None
    """For texts: how they are written at evaluation."""
    reports: Callable[[Any, PyTree[Array], PyTree[Array]], Info] | None = None
    """`reports(output, targets, task) -> info` of a batch, before its update: parts of the loss, an entropy."""
    coded: Coded | None = None
    """How outputs stand for values where they are learned as distributions, as with two-hot; None if they do not."""
    can_be_negative: bool = False
    """Whether losses can be negative, as those of policies: then a share of a loss says nothing."""


class Split(NamedTuple):
    """The training, test or validation examples of every task."""

    num: Callable[[int], int]
    """Examples in task number `index`, ≥ 1."""
    batch: Callable[[PyTree[Array], PyTree[Array], Int[Array, " batch"]], Batch]
    """`batch(data, task, indices) -> Batch`, of the examples with these numbers; traced and vmapped."""


def shape_of(inputs: PyTree[jax.ShapeDtypeStruct]) -> "tuple[int, ...] | TextLengths":
    """The shape of one example, as network factories take it."""
    if isinstance(inputs, Text):
        return TextLengths(*(each.shape[0] for each in inputs))
    return tuple(inputs.shape)


class Stream(NamedTuple):
    """A sequence of tasks: task t is a function of (key, t) alone, whether or not the earlier ones were made.

    What all tasks share (images) is stored once, in `data`. What is a task's own (labels, a permutation) is small:
    `task` makes it for each seed, and it is an argument of the compiled program, so nothing recompiles between tasks.
    """

    name: str
    dataset: str
    num_tasks: int
    num_outputs: int
    """Size of the network's output: classes, values, or tokens of the vocabulary."""
    inputs: PyTree[jax.ShapeDtypeStruct]
    """Shape and type of the inputs of one example: a `jax.ShapeDtypeStruct`, or a `Text` of two."""
    train: Split
    objective: Objective
    headline: str
    """The metric that this stream is about, such as "train_accuracy"."""
    chance: float | None
    """Chance level of the headline metric, if it is a single number."""
    data: PyTree[Array]
    task: Callable[[Key, Any], PyTree[Array]]
    """`task(key, index)` returns the arrays that make task number `index`; traced and vmapped."""
    test: Split | None = None
    """None where a test score would mean nothing."""
    validation: Split | None = None
    """Examples held out of training to choose weights by, apart from the test."""
    keeps: Literal["inputs", "targets"] | None = None
    """What training example number i has in common from task to task: transitions that interpolate need to know."""
    micro_steps: int = 1
    """Number of equal steps in which one task changes into the next; 1 is abrupt."""
    at: Callable[[PyTree[Array], Any], PyTree[Array]] | None = None
    """`at(task, m) -> the task after micro-step m` of `micro_steps`, 1 ≤ m; after the last it is the pure task."""
    augment: Callable[[Key, Any], Array] | None = None
    """`augment(key, inputs) -> inputs`, applied to training batches only."""
    depends_on_num_tasks: bool = False
    """Whether the first tasks change with `num_tasks`: a run of such a stream cannot be extended by more tasks."""

    @property
    def input_shape(self) -> "tuple[int, ...] | TextLengths":
        """The shape of one example, as network factories take it: (height, wide, channels) or (features,).

        Example:
          >>> from pliant.streams import random_teacher
          >>> random_teacher().input_shape
          (32,)
        """
        return shape_of(self.inputs)


class World(NamedTuple):
    """What an environment is told beside its state and the action."""

    data: PyTree[Array]
    """What all tasks and seeds share, such as images; an argument of the compiled program."""
    task: PyTree[Array]
    """The arrays that make the current task of a seed, such as a permutation of channels."""


class Outcome(NamedTuple):
    """What a step of an environment leads to."""

    observation: Shaped[Array, "..."]
    reward: Scalar
    terminated: Bool[Array, ""]
    """Whether the episode has ended and nothing follows: the value of what comes is 0."""
    truncated: Bool[Array, ""]
    """Whether the episode was cut, as by a time limit: the value of what would have come is that of `observation`."""
    score: Scalar | None = None
    """What returns are reported in, where `reward` was clipped for learning; None if it is the reward."""
    game_over: Bool[Array, ""] | None = None
    """Whether the game that is scored has ended, where episodes are shorter, such as lives; None if an episode is a
    game."""


class Environment(NamedTuple):
    """One Markov decision process with discrete actions, as pure functions of one copy of it.

    `reset` and `step` are traced, and vmapped over copies. `step` is never called behind the end of an episode: agents
    reset. Keys are typed.

    An environment that cannot be vmapped, such as a process of the host, has `together`. The environment that it makes
    is `num` copies at once. Every array then has a leading axis; keys stay single. `step` returns the *last*
    observation of an episode that ends; before the next step the agent calls `restart`. A state is used once: the host
    cannot go back.
    """

    name: str
    observation: jax.ShapeDtypeStruct
    """Shape and type of an observation, as replays and rollouts store it; see `view` for what the network gets."""
    num_actions: int
    reset: Callable[[Key, World], tuple[State, Array]]
    """`reset(key, world) -> (state, observation)`: an episode begins."""
    step: Callable[[Key, State, Int[Array, ""], World], tuple[State, Outcome]]
    """`step(key, state, action, world) -> (state, outcome)`; `action` is in [0, num_actions)."""
    max_episode_steps: int
    """Steps after which every episode has ended; evaluation stops there."""
    dead_below: float | None = None
    """A phase whose mean episode return is lower is dead: the policy does not act on what it sees. None if no such
    return is known."""
    together: "Callable[[int], Environment] | None" = None
    """`together(num)`: that many copies as one environment, see above. None if it can be vmapped."""
    restart: "Callable[[Key, State, Bool[Array, ' num'], World], tuple[State, Array]] | None" = None
    """Of copies together: `restart(key, state, done, world) -> (state, observations)` begins an episode in the copies
    that are done. The observations are those of all copies: the others' are unchanged."""
    release: Callable[[State], None] | None = None
    """Of copies together: `release(state)` gives back what the host keeps for these copies, such as when a task or an
    evaluation ends. The state is useless afterwards."""
    frames: int = 0
    """If not 0, an observation is a stack of this many frames along its last axis, the newest last. A step adds one
    frame and drops the oldest; at the beginning of an episode all are the first frame. So a replay may store each frame
    once, see `pliant.rl`."""
    view: Callable[[Array, World], Float[Array, "..."]] | None = None
    """`view(observation, world) -> input of the network`, float32, for one stored observation, such as the image of a
    stored index; traced and vmapped. None casts to float32, and divides uint8 by 255. Agents call `pliant.rl.view`."""


class EnvironmentStream(NamedTuple):
    """A sequence of tasks for an agent: task t is one of a few environments, with arrays of its own.

    All environments have the same observations and actions, so one network and one program serve all tasks.
    """

    name: str
    num_tasks: int
    environments: tuple[Environment, ...]
    """The different ones; each is compiled once."""
    which: Callable[[int], int]
    """`which(index) -> place in environments` of task number `index`; the same for all seeds."""
    task: Callable[[Key, Any], PyTree[Array]] = lambda *_: ()
    """`task(key, index)` returns the arrays that make task number `index`; traced and vmapped over seeds."""
    data: PyTree[Array] = ()
    """See `World`."""
    dataset: str = "generated"
    depends_on_num_tasks: bool = False
    """Whether the first tasks change with `num_tasks`: a run of such a stream cannot be extended by more tasks."""

    @property
    def observation(self) -> jax.ShapeDtypeStruct:
        """Shape and type of an observation, as it is stored."""
        return self.environments[0].observation

    @property
    def inputs(self) -> jax.ShapeDtypeStruct:
        """Shape and type of one input of the network."""
        environment = self.environments[0]
        if environment.view is None:
            return jax.ShapeDtypeStruct(environment.observation.shape, np.float32)
        task = jax.eval_shape(self.task, jax.eval_shape(lambda: jax.random.key(0)), 0)
        shown = jax.eval_shape(environment.view, environment.observation, World(self.data, task))
        return jax.ShapeDtypeStruct(shown.shape, shown.dtype)

    @property
    def num_actions(self) -> int:
        """Number of actions."""
        return self.environments[0].num_actions


class Rule(NamedTuple):
    """How a network learns: what copies of it are trained with where a diagnostic asks how well it still can."""

    optimizer: optax.GradientTransformationExtraArgs
    """Its update is handed `step` and `key`. Penalties, interventions and schedules of a method are not in it."""
    batch_size: int


class Subject(NamedTuple):
    """What a diagnostic looks at: a network at one moment, and examples to look at it by."""

    network: Network
    params: Params
    state: State
    probe: Batch
    losses: Callable[[Array, PyTree[Array]], Float[Array, " batch"]]
    """`losses(output, targets) -> loss of every example`, of the current task."""
    key: Key
    initial: tuple[Params, State] | None = None
    """How the network began; None where nobody knows, as with the fields below."""
    previous: tuple[Params, State] | None = None
    """The network one measurement ago: at the end of the task before."""
    rule: Rule | None = None
    followed: Mapping[str, State] | None = None
    """By name, the states of the diagnostics that have followed training, see `Diagnostic.init`."""
    output: str | None = None
    """Which of several named outputs is measured; None for a network with one output."""
    coded: Coded | None = None
    """See `Objective`."""


class Update(NamedTuple):
    """One update of training, as the diagnostics that follow it see it."""

    key: Key
    """Of this update, for diagnostics that draw. All of them get the same: fold something of your own in."""
    params: Params
    """Before it."""
    step: Params
    """The optimizer's step, before it is added."""
    change: Params
    """What the step changed: it is rounded when it is added."""
    loss: Scalar
    """Of the batch before the update, without penalties."""
    loss_after: Callable[[], Scalar]
    """Of the same batch after it. Costs a forward pass."""


class Measured(NamedTuple):
    """What a diagnostic found in one network."""

    numbers: Mapping[str, float]
    """By metric. Those of one layer are named metric/layer."""
    arrays: Mapping[str, np.ndarray] = {}
    """Spectra, matrices and curves, to be stored and drawn."""


class Diagnostic(NamedTuple):
    """A measurement in two parts: arrays on the device, compiled and mapped over seeds; then numbers on the host.

    Never advances the training key, the optimizer or batch statistics.
    """

    name: str
    summary: str
    cost: Literal["cheap", "spectral", "per-task", "rare"]
    """Classes A to D: cheap and spectral ones are measured after every task, see `diagnose_after` of a run for the
    others."""
    measure: Callable[[Subject], PyTree[Array]] | None = None
    """Arrays from the subject, compiled. Raises `UserError` for a subject that it cannot measure; never depends on
    numbers there."""
    summarize: Callable[[PyTree[np.ndarray]], Measured] | None = None
    """From the arrays of one seed, in float64."""
    needs: tuple[Literal["initial", "previous", "rule", "followed"], ...] = ()
    """Fields of the subject that must be there."""
    init: Callable[[Params], State] | None = None
    """The diagnostic's own state before the first update, which `follow` carries from update to update."""
    follow: Callable[[State, Update], tuple[State, Info]] | None = None
    """`follow(state, update) -> (state, info)`. A diagnostic with `init` sees every update. Without it the state is (),
    and it sees 16 updates of each task, evenly spaced; its numbers are means over these."""
    moment: Literal["start", "end"] = "end"
    """When runs measure it: at the start of a task, before its first update and after what methods do when the task
    changes; or at its end. The names of metrics from the start begin with `start_`."""
    measures_shares: bool = False
    """Whether it measures a share of the loss, which must not be negative then."""
    make: "Callable[..., Diagnostic] | None" = None
    """`make(*, options) -> this diagnostic with other options`, all keyword-only with defaults. A run sets them as
    NAME:OPTION=VALUE, such as probe-plasticity:num_steps=500. None if there are no options."""


class Fed(NamedTuple):
    """Inputs that the host prepares for a chunk of updates."""

    own: PyTree[np.ndarray]
    """Arrays with a seed axis, then a step axis, such as the indices of examples."""
    shared: PyTree[np.ndarray]
    """Arrays with a step axis that are the same for all seeds."""


class Scene(NamedTuple):
    """What a source is told of a seed in a task."""

    key: Key
    """For what the source draws; another one for each call."""
    data: PyTree[Array]
    """The source's `data`, as an argument of the compiled program."""
    task: PyTree[Array]
    facts: PyTree[Array]
    """The source's `facts` of the task, the same for all seeds."""
    numbers: Mapping[str, Any] = {}
    """The source's `numbers`, traced."""


class Now(NamedTuple):
    """What a source is told of an update: the fields of a `Scene`, and two more."""

    key: Key
    data: PyTree[Array]
    task: PyTree[Array]
    facts: PyTree[Array]
    numbers: Mapping[str, Any]
    step: Int[Array, ""]
    """The number of the update, from 1."""
    fed: Fed
    """What the host prepared for this update."""


class Lesson(NamedTuple):
    """What one update learns from."""

    batch: Batch
    task: PyTree[Array]
    """The task at this update, which the objective is told."""
    examples: Callable[[Key, int], Batch]
    """`examples(key, num_examples)`: examples of the task, sampled with replacement: for penalties and probes."""


class Selection(NamedTuple):
    """Chooses the weights that a task ends with from those at several updates."""

    after: Callable[[int], list[int]]
    """`after(index)`: the numbers of updates after which task number `index` compares; the last is its end."""
    score: Callable[[Network, tuple[Params, State], Scene, State], Scalar]
    """`score(network, (params, statistics), scene, state)`: the highest wins, the first of equals."""
    metric: str
    """Name under which the best score is recorded."""


class Source(NamedTuple):
    """Where batches come from: all that training knows of a problem.

    A task is a block of updates in which nothing else switches. Functions that are given a `Scene` are pure and traced,
    for one seed; data, tasks and facts are arguments of the compiled program, so nothing recompiles between tasks.
    `num_updates`, `facts`, `feed` and `summarize` run on the host.
    """

    name: str
    """What settings and grids call it."""
    inputs: PyTree[jax.ShapeDtypeStruct]
    """Of one example."""
    num_outputs: int | Mapping[str, int]
    """Size of the network's output, or of each named output."""
    objective: Objective
    progress: str
    """The metric that is shown during training."""
    data: PyTree[Array]
    """What all tasks and seeds share."""
    task: Callable[[Key, Any], PyTree[Array]]
    """`task(key, index)`: the arrays that make task number `index`."""
    num_updates: Callable[[int], int]
    """Updates in task number `index`, ≥ 1."""
    facts: Callable[[int], PyTree[np.ndarray]]
    """`facts(index)`: numbers of task `index` that the host knows, of the same shapes for all tasks: sizes, indices."""
    feed: Callable[[Sequence[int], int, int, int], Fed]
    """`feed(seeds, index, start, stop)`: what updates `start` to `stop` − 1 of task `index` are fed. A pure function of
    its arguments: chunks are of any size, so the feed of 0 to 8 equals that of 0 to 3 followed by that of 3 to 8."""
    draw: Callable[[Network, Now, State, "Learned"], tuple[State, Lesson, Info]]
    """`draw(network, now, state, learned) -> (state, lesson, info)`, before every update."""
    probe: Callable[[Network, Scene, State], tuple[Batch, PyTree[Array]]]
    """`probe(network, scene, state) -> (batch, task)`: the examples on which diagnostics are measured at the end of a
    task, and the task that the objective is told."""
    evaluate: Callable[[Network, tuple[Params, State], Scene, State], PyTree[Array]]
    """`evaluate(network, (params, statistics), scene, state)`: arrays at the end of a task."""
    summarize: Callable[[PyTree[np.ndarray]], dict[str, float]]
    """Named numbers of one seed from what `evaluate` returned."""
    selection: Selection | None = None
    """None if a task ends with its last weights."""
    init: Callable[[Network, Scene, "Learned"], State] | None = None
    """`init(network, scene, learned)`: the state before the first task: environments, a replay, a target network. None
    for no state. It is donated to the compiled program: where seeds are batched, a replay is never copied."""
    switch: Callable[[Network, Scene, State, "Learned"], State] | None = None
    """`switch(network, scene, state, learned) -> state`, of the same shapes, before tasks other than the first. None
    changes nothing."""
    output: str | None = None
    """The named output that diagnostics of a single output measure."""
    branches: Mapping[str, str] | None = None
    """The branch of each named output that has a network of its own, such as {"policy": "actor", "value": "critic"};
    None if all outputs share one network."""
    gains: Mapping[str, float] = {}
    """What the initial kernels of the heads of named outputs are multiplied by, if not by 1."""
    numbers: Mapping[str, float] = {}
    """Hyperparameters that are arguments of the compiled program, such as a discount: a grid can vary them."""
    clip: Callable[[Params, Mapping[str, Any]], Params] | None = None
    """`clip(gradients, numbers) -> gradients` before the optimizer sees them; None leaves them alone."""
    points: Callable[[int], list[int]] | None = None
    """`points(index)`: numbers of updates of task `index` at which a point of its learning curve is stored: what
    updates have reported since the last one, and an evaluation. None for no curve."""
    env_steps: float = 0.0
    """Steps of environments for each update, if there are any; they become an axis of figures."""
    one_by_one: bool = False
    """Whether seeds must be trained one after the other: the program calls the host."""
    within: Callable[[], AbstractContextManager[None]] = nullcontext
    """`within()`: a context for the whole training, such as one that closes what the host keeps."""

    @property
    def input_shape(self) -> "tuple[int, ...] | TextLengths":
        """The shape of one example, as network factories take it."""
        return shape_of(self.inputs)
