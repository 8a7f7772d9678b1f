from .cli import main as main
from .diagnostics.findings.finding import Finding as Finding
from .probes import PROBES as PROBES
from .probes.errors import InputError as InputError
from .probes.records.foreign import record as record
from .probes.version import __version__ as __version__
from .reports.figures import plot as plot
from .trainers.callbacks.hook import Hook as Hook
from .trainers.config.settings import Settings as Settings
<<<<<<< HEAD
from .trainers.conformance.error_audit import audit as audit
=======
from .trainers.layers.conversions import converts as converts
>>>>>>> 24451db (layers: convert attention, recurrent networks, Bilinear, Conv1D and computed weights, by one registry of layer types)
from .trainers.layers.convert import feedback_parameters as feedback_parameters
from .trainers.layers.convert import summary as summary
from .trainers.layers.convert import transport_free as transport_free
from .trainers.layers.operations import Operation as Operation
from .trainers.layers.optimizer_groups import parameter_groups as parameter_groups
from .trainers.layers.revert import revert as revert
from .trainers.loop.fit import Training as Training
from .trainers.observe.open_run import open_run as open_run
from .trainers.observe.tracer import error_signals as error_signals
from .trainers.record.recorder import Recorder as Recorder
from .trainers.rules import RULES as RULES
from .trainers.rules import Rule as Rule
from .trainers.rules import rule as rule
from .workflow import analyze as analyze
from .workflow import compare as compare
from .workflow import diagnose as diagnose
from .workflow import report as report
