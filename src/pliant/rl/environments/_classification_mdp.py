"""Classification MDPs: the latent state is a class, the observation an image of it."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from pliant.errors import UserError, require_choice, require_whole
from pliant.streams import Dataset, ImageData, image_data, normalized
from pliant.types import Environment, EnvironmentStream, Key, Outcome, World

_FEWEST_PER_STATE = 25  # of random labels: all of 10 states have an image but for one seed in 10¹⁰


class Members(NamedTuple):
    """The images of every latent state."""

    images: Int[np.ndarray | Array, " images"]
    """Their indices, sorted by state."""
    starts: Int[np.ndarray | Array, " states"]
    """Where in `images` those of each state begin."""
    counts: Int[np.ndarray | Array, " states"]
    """How many images each state has."""


class Shared(NamedTuple):
    """What all tasks and seeds share."""

    images: ImageData
    """Without test images."""
    members: Members
    """By the true labels."""


class Latent(NamedTuple):
    """The state of the environment."""

    state: Int[Array, ""]
    """The class of the last observation."""
    steps: Int[Array, ""]
    """Steps of this episode so far."""


def classification_mdp(
    dataset: Dataset,
    *,
    num_tasks: int = 20,
    variant: Literal["easy", "hard", "sparse"] = "easy",
    redraw: bool = False,
    max_episode_steps: int = 100,
) -> EnvironmentStream:
    r"""Image classification as a Markov decision process: the observation is an image, the action names its class.

    Use it to measure the plasticity of value-based agents in an environment that costs next to nothing.
    There is one latent state s and one action a for each class, and three variants.

    In "easy", s is seen as an image of class s, the reward is 1 if a = s and 0 otherwise, and the next state is
    uniform, whatever a is.

    In "hard", s is seen as an image whose random label is s. The rest is as in "easy".

    In "sparse", s is seen as an image of class s, the reward is 1 only if a = s and s is the last state, and the next
    state is s + 1 if a = s and uniform otherwise. State 0 follows the last state.

    The image is sampled uniformly among those of the state, again in every step. With C classes, the policy a = s is
    rewarded in every step of "easy" and "hard", and in every C-th step of "sparse". A policy that ignores the
    observation is rewarded in 1 of C steps of "easy" and "hard", on average.

    It is one MDP, which never changes and never terminates; tasks only divide training. Episodes are cut every
    `max_episode_steps` steps (truncated: the value of what follows counts), so that there are returns to report.

    An observation is the index of an image, int32; `Environment.view` looks up the image, standardised as in
    streams. The observations of a replay of a million transitions therefore take 4 MB.

    Args:
      dataset: the images; only its training part is used. 2 classes or more, each with an image; "hard"
        requires 25 images for each class.
      num_tasks: parts that training is divided into, ≥ 1.
      variant: "easy", "hard" or "sparse".
      redraw: True samples new random labels of "hard" for every task; False samples them once for each seed.
      max_episode_steps: length of all episodes, ≥ 1; the return is the number of rewards in so many steps.

    Returns:
      An `EnvironmentStream`. Its task is empty but in "hard", where it is the `Members` by random label.

    Raises:
      UserError: for an unknown variant, numbers out of range, `redraw` of true labels, or too few classes or images.

    Example:
      >>> from pliant.streams import load_dataset
      >>> stream = classification_mdp(load_dataset("digits"))
      >>> stream.observation.dtype.name, stream.inputs.shape, stream.num_actions
      ('int32', (8, 8, 1), 10)
      >>> environment, world = stream.environments[0], World(stream.data, ())
      >>> state, image = environment.reset(jax.random.key(0), world)
      >>> state, outcome = environment.step(jax.random.key(1), state, state.state, world)
      >>> float(outcome.reward)
      1.0

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023. Section
      4.1 and appendix A.2.

    Differs from:
      Nothing known in what the text states. It leaves open what follows the last state of "sparse" (here: state 0),
      whether a uniform state may be the present one (here: yes), whether anything terminates (here: nothing does), and
      which images are used (here: all of the training part). Random labels are uniform and independent.
      In "sparse" the policy a = s is not the best one: at γ → 1 it is better to act wrongly in the lower half of the
      states, which jumps, and that earns 1/5 of a reward a step for 10 classes rather than 1/10.
    """
    require_choice("variant", variant, "easy", "hard", "sparse")
    require_whole("tasks", num_tasks, 1, do="Leave it out for the default of 20.")
    require_whole("max_episode_steps", max_episode_steps, 1, do="Leave it out for the default of 100.")
    if redraw and variant != "hard":
        raise UserError(
            got=f"redraw=True with variant={variant!r}",
            wanted="random labels, which can change",
            do="Set variant='hard', or leave redraw out.",
        )
    num_states, (images, labels) = dataset.num_classes, dataset.train
    data = image_data(dataset)
    _require_images(dataset, variant)

    def task(key: Key, index: Int[Array, ""] | int) -> Members | tuple[()]:
        if variant != "hard":
            return ()
        key = jax.random.fold_in(key, index if redraw else 0)
        return _members(jax.random.randint(key, (len(images),), 0, num_states, jnp.int32), num_states)

    def observe(key: Key, state: Int[Array, ""], world: World) -> Int[Array, ""]:
        members: Members = world.task if variant == "hard" else world.data.members
        place = jax.random.randint(key, (), 0, jnp.asarray(members.counts)[state])
        return jnp.asarray(members.images)[jnp.asarray(members.starts)[state] + place]

    def reset(key: Key, world: World) -> tuple[Latent, Int[Array, ""]]:
        of_state, of_image = jax.random.split(key)
        state = jax.random.randint(of_state, (), 0, num_states, jnp.int32)
        return Latent(state, jnp.int32(0)), observe(of_image, state, world)

    def step(key: Key, latent: Latent, action: Int[Array, ""], world: World) -> tuple[Latent, Outcome]:
        of_state, of_image = jax.random.split(key)
        is_right: Bool[Array, ""] = action == latent.state
        rewarded, state = is_right, jax.random.randint(of_state, (), 0, num_states, jnp.int32)
        if variant == "sparse":
            rewarded = is_right & (latent.state == num_states - 1)
            state = jnp.where(is_right, (latent.state + 1) % num_states, state)
        after = Latent(state, latent.steps + 1)
        cut = after.steps >= max_episode_steps
        observation = observe(of_image, state, world)
        return after, Outcome(observation, rewarded.astype(jnp.float32), jnp.zeros((), bool), cut)

    def view(observation: Int[Array, ""], world: World) -> Float[Array, "height wide channels"]:
        return normalized(world.data.images, world.data.images.train, observation[None])[0]

    environment = Environment(
        name=f"{variant}-{dataset.name}",
        observation=jax.ShapeDtypeStruct((), jnp.int32),
        num_actions=num_states,
        reset=reset,
        step=step,
        max_episode_steps=max_episode_steps,
        view=view,
    )
    by_class: Members = jax.tree.map(np.asarray, _members(jnp.asarray(labels, jnp.int32), num_states))
    return EnvironmentStream(
        name="classification-mdp",
        num_tasks=num_tasks,
        environments=(environment,),
        which=lambda _: 0,
        task=task,
        data=Shared(data._replace(test=data.train._replace(images=images[:0], labels=labels[:0])), by_class),
        dataset=dataset.name,
    )


def _members(labels: Int[Array, " images"], num_states: int) -> Members:
    counts = jnp.zeros(num_states, jnp.int32).at[labels].add(1)
    return Members(jnp.argsort(labels).astype(jnp.int32), jnp.cumsum(counts) - counts, counts)


def _require_images(dataset: Dataset, variant: str) -> None:
    """Refuses data of which a state could be without an image."""
    number, num_states = len(dataset.train.labels), dataset.num_classes
    require_whole("classes", num_states, 2, do="Choose a data set of more classes.")
    if variant == "hard" and number < _FEWEST_PER_STATE * num_states:
        raise UserError(
            got=f"{number} training images of {dataset.name!r} for random labels of {num_states} classes",
            wanted=f"{_FEWEST_PER_STATE * num_states} or more, so that every label has images",
            do="Leave train_size out, or raise it.",
        )
    present = np.bincount(dataset.train.labels, minlength=num_states) > 0
    if variant != "hard" and not present.all():
        raise UserError(
            got=f"no training image of class {int(np.argmin(present))} in {dataset.name!r}",
            wanted=f"images of all {num_states} classes: they are the states",
            do="Raise train_size, or make the data set with `load_dataset`.",
        )
