"""The rules that a document can ask for are those that the hypervisor knows, switch by switch."""

from dataclasses import asdict, fields

import pytest

from vmm.assembly.specification import RulesSpecification
from vmm.rules import Rules, RuleSet

SWITCHES = [field.name for field in fields(Rules) if field.name != "set"]


def test_a_document_has_every_switch_in_the_same_order_and_as_it_was_meant() -> None:
    assert list(RulesSpecification.model_fields) == ["set", *SWITCHES]
    assert RulesSpecification().model_dump() == asdict(Rules())
    assert RulesSpecification().rules() == Rules()


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_turns_off_its_own_rule_only(switch: str) -> None:
    turned = RulesSpecification.model_validate({switch: False}).rules()
    assert asdict(turned) == {**asdict(Rules()), switch: False}


@pytest.mark.parametrize("chosen", RuleSet)
def test_every_rule_set_can_be_asked_for(chosen: RuleSet) -> None:
    assert RulesSpecification.model_validate({"set": str(chosen)}).rules() == Rules(set=chosen)
