"""Which method does a scenario name? Built with its options, or refused at the line that names them."""

from fedsim.errors import ScenarioError
from fedsim.experiment.scenario import Scenario
from fedsim.method.bundle import Method
from fedsim.method.catalogue import build_method, method_names
from fedsim.method.options import OptionError


def method_of(scenario: Scenario) -> Method:
    """Build the method of a scenario.

    Args:
        scenario: As loaded.

    Raises:
        ScenarioError: With the place of the name or of the option that is wrong.
    """
    section = scenario.method
    try:
        return build_method(section.name, section.options)
    except OptionError as error:
        raise scenario.error(f"method.options.{error.option}", error.problem) from error
    except ScenarioError as error:
        key = "method.options" if section.name in method_names() else "method.name"
        raise scenario.error(key, str(error)) from error
