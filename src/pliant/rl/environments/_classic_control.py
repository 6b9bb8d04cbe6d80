"""Classic control for first steps: small problems that an agent solves within minutes."""

from pliant.errors import extra, require_whole
from pliant.rl.environments._gymnax import from_gymnax
from pliant.types import EnvironmentStream


def cartpole(*, num_tasks: int = 1, max_episode_steps: int = 500) -> EnvironmentStream:
    """Balances a pole on a cart: the first environment to try an agent on.

    The agent sees position and velocity of the cart, angle and angular velocity of the pole, and pushes to the left
    or to the right. The reward is 1 for each step; the episode ends when the cart leaves the track or the pole leans by
    more than 12°. A random policy holds it for about 22 steps; 500 is the best return.

    Args:
      num_tasks: ≥ 1; they are all the same.
      max_episode_steps: steps after which an episode is truncated, 1 to 500.

    Returns:
      An `EnvironmentStream` of one environment; observations are float32 (4,), and there are 2 actions.

    Raises:
      UserError: for numbers out of range, or if gymnax is missing.

    Example:
      >>> stream = cartpole(num_tasks=3)
      >>> stream.observation.shape, stream.num_actions, stream.which(2)
      ((4,), 2, 0)

    References:
      Barto, Sutton and Anderson, Neuronlike adaptive elements that can solve difficult learning control problems, 1983;
      CartPole-v1 of Gymnasium, as gymnax has it.
    """
    return _one("cartpole", "CartPole-v1", num_tasks, max_episode_steps, 500)


def acrobot(*, num_tasks: int = 1, max_episode_steps: int = 500) -> EnvironmentStream:
    """Swings a double pendulum up by a motor between its links: reward is rare.

    The agent sees cosine and sine of both angles, and both velocities, and turns the joint to one side, not at all, or
    to the other. The reward is −1 for each step before the tip is a link's length above the pivot. A random policy
    hardly ever gets there: its return is −500, or a little more.

    Args:
      num_tasks: ≥ 1; they are all the same.
      max_episode_steps: steps after which an episode is truncated, 1 to 500.

    Returns:
      An `EnvironmentStream` of one environment; observations are float32 (6,), and there are 3 actions.

    Raises:
      UserError: for numbers out of range, or if gymnax is missing.

    Example:
      >>> stream = acrobot()
      >>> stream.observation.shape, stream.num_actions
      ((6,), 3)

    References:
      Sutton, Generalization in reinforcement learning: successful examples using sparse coarse coding, 1996; Acrobot-v1
      of Gymnasium, as gymnax has it.
    """
    return _one("acrobot", "Acrobot-v1", num_tasks, max_episode_steps, 500)


def mountain_car(*, num_tasks: int = 1, max_episode_steps: int = 200) -> EnvironmentStream:
    """Drives a weak car out of a valley: exploration is hard.

    The agent sees position and velocity, and pushes to the left, not at all, or to the right. The reward is −1 for each
    step until the flag is reached, which a random policy does not do: its return is −200.

    Args:
      num_tasks: ≥ 1; they are all the same.
      max_episode_steps: steps after which an episode is truncated, 1 to 200.

    Returns:
      An `EnvironmentStream` of one environment; observations are float32 (2,), and there are 3 actions.

    Raises:
      UserError: for numbers out of range, or if gymnax is missing.

    Example:
      >>> stream = mountain_car()
      >>> stream.observation.shape, stream.num_actions
      ((2,), 3)

    References:
      Moore, Efficient memory-based learning for robot control, 1990; MountainCar-v0 of Gymnasium, as gymnax has it.
    """
    return _one("mountain-car", "MountainCar-v0", num_tasks, max_episode_steps, 200)


def _one(name: str, kind: str, num_tasks: int, limit: int, longest: int) -> EnvironmentStream:
    require_whole("tasks", num_tasks, 1, do="Leave it out for the default of 1.")
    require_whole("max_episode_steps", limit, 1, longest, do=f"Leave it out for {longest}.")
    with extra("rl", kind):
        import gymnax
    environment, params = gymnax.make(kind)
    environment = from_gymnax(environment, params.replace(max_steps_in_episode=limit), name=name)
    return EnvironmentStream(name=name, num_tasks=num_tasks, environments=(environment,), which=lambda _: 0)
