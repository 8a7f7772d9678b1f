from .collected import GIVEN as GIVEN
from .collected import PROBES as PROBES
from .collected import Measure as Measure
from .collected import Probe as Probe
from .collected import Quantities as Quantities
from .collected import declare as declare
from .collected import probe as probe
from .collected import shared as shared
