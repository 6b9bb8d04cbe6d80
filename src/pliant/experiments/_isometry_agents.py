"""The experiments of the AdamO paper on agents."""

from pliant.experiments._claims import Claim, Difference
from pliant.experiments._experiment import Experiment
from pliant.experiments._figures import over_tasks
from pliant.experiments._isometry import PAPER
from pliant.experiments._quantities import Over, Score

_MINATAR_WINDOW = 20  # five cycles of four games
_OCTAX_WINDOW = 8  # a cycle of the published size
_RETURN = 0.25  # the smallest difference of returns in Breakout that counts
_DEAD = 0.5  # the return of a policy that does the same whatever it sees is below


def _minatar(method: str, metric: str = "", over: Over = "last") -> Score:
    return Score(method, metric, over, window=_MINATAR_WINDOW)


def _plays(method: str) -> Difference:
    return Difference(_minatar(method), _DEAD, by=2 * _RETURN)


def _keeps(method: str) -> tuple[Difference, ...]:
    return (_plays(method), Difference(_minatar(method, over="rise"), 0.0, by=-_RETURN))


_MINATAR = Experiment(
    "isometry/continual-minatar",
    "Do agents keep learning when games change?",
    f"{PAPER}, section 6.2, appendix B.5 and figures 2 and 9 to 16",
    "PPO with Adam loses its ability to learn over 20 cycles of four games; AdamO, with ReLU or MaxMin, keeps it, and "
    "matches or outperforms the baselines.",
    {"minatar": "isometry/continual-minatar"},
    (
        Claim(
            "ppo-loses-ability",
            "The PPO baseline loses its ability to learn over time.",
            "section 6.2, figure 2",
            (Difference(_minatar("adam", over="fall"), 0.0, by=_RETURN),),
        ),
        Claim(
            "adamo-keeps-returns",
            "AdamO maintains consistent performance throughout.",
            "section 6.2, figure 2",
            _keeps("adamo"),
        ),
        Claim(
            "adamo-maxmin-keeps-returns",
            "AdamO with MaxMin maintains consistent performance throughout.",
            "section 6.2, figure 2",
            _keeps("adamo-maxmin"),
        ),
        Claim(
            "adamo-matches-baselines",
            "AdamO matches or outperforms the baselines on evaluation runs.",
            "section 6.2, figure 2",
            (
                _plays("adamo"),
                *(
                    Difference(_minatar("adamo", "eval_return"), _minatar(other, "eval_return"), by=-_RETURN)
                    for other in ("adam", "l2-init", "nap")
                ),
            ),
        ),
        Claim(
            "agents-fewer-dormant",
            "Methods that perform best have a lower build-up of dormant units.",
            "appendix B.5",
            (
                Difference(
                    _minatar("adam", "dormant_fraction", "rise"), _minatar("adamo", "dormant_fraction", "rise"), by=0.02
                ),
            ),
        ),
        Claim(
            "agents-nearer-isometry",
            "Methods that perform best keep spectra in a healthier regime: AdamO's weights stay nearer isometry.",
            "appendix B.5",
            (Difference(_minatar("adam", "isometry_deviation"), _minatar("adamo", "isometry_deviation"), by=0.5),),
        ),
        Claim(
            "agents-broader-rank",
            "Methods that perform best have a broader effective rank of the features.",
            "appendix B.5",
            (Difference(_minatar("adamo", "effective_rank"), _minatar("adam", "effective_rank"), by=1.0),),
        ),
    ),
    over_tasks(
        "PPO in continual MinAtar",
        ("return", "minatar", ""),
        ("dormant units", "minatar", "dormant_fraction"),
        ("isometry deviation", "minatar", "isometry_deviation"),
        ("effective rank", "minatar", "effective_rank"),
    ),
    (_minatar(""),),
)

_OCTAX = Experiment(
    "isometry/continual-octax",
    "Do the results of MinAtar hold for convolutions and longer games?",
    f"{PAPER}, section 6.2, appendix B.6 and figures 17 to 23",
    "AdamO, with ReLU or GroupSort, preserves plasticity and achieves higher rewards than Adam in three cycles of "
    "eight games.",
    {"octax": "isometry/continual-octax"},
    (
        Claim(
            "octax-adamo-better",
            "AdamO achieves superior rewards to Adam.",
            "section 6.2, figure 17",
            (Difference(Score("adamo", over="mean"), Score("adam", over="mean"), by=0.0),),
        ),
        Claim(
            "octax-fewer-dormant",
            "AdamO has a lower build-up of dormant units than Adam.",
            "appendix B.5",
            (
                Difference(
                    Score("adam", "dormant_fraction", window=_OCTAX_WINDOW),
                    Score("adamo", "dormant_fraction", window=_OCTAX_WINDOW),
                    by=0.02,
                ),
            ),
        ),
    ),
    over_tasks(
        "PPO in continual Octax",
        ("return", "octax", ""),
        ("dormant units", "octax", "dormant_fraction"),
        ("effective rank", "octax", "effective_rank"),
    ),
    (Score("", window=_OCTAX_WINDOW),),
)

EXPERIMENTS = (_MINATAR, _OCTAX)
