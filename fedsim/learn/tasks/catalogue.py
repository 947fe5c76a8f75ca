"""Which tasks on files are there?"""

from fedsim.learn.tasks.alpaca import ALPACA
from fedsim.learn.tasks.boolq import BOOLQ
from fedsim.learn.tasks.draft import TaskFormat
from fedsim.learn.tasks.e2e_nlg import E2E_NLG
from fedsim.learn.tasks.gsm8k import GSM8K
from fedsim.learn.tasks.hellaswag import HELLASWAG
from fedsim.learn.tasks.instruction_jsonl import INSTRUCTION_JSONL
from fedsim.learn.tasks.piqa import PIQA
from fedsim.learn.tasks.text_classification import TEXT_CLASSIFICATION
from fedsim.learn.tasks.winogrande import WINOGRANDE

TASKS: dict[str, TaskFormat] = {
    form.name: form
    for form in (
        E2E_NLG,
        ALPACA,
        HELLASWAG,
        BOOLQ,
        PIQA,
        WINOGRANDE,
        GSM8K,
        TEXT_CLASSIFICATION,
        INSTRUCTION_JSONL,
    )
}
