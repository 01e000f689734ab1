"""What may be broken on purpose: the rules of the core, and those of the program around it."""

from __future__ import annotations

from msgspec import Struct

from caso_mesh.consensus.rules import ALL_RULES, Rules


class Policies(Struct, frozen=True):
    """All true: as in the product. One false: the mutant of that name."""

    #: Nothing that promises something is sent before it is durable.
    persist_before_reply: bool = True
    #: Term and vote are written together.
    vote_with_term: bool = True
    pre_vote: bool = True
    check_quorum: bool = True
    #: A newcomer becomes a voter when its log is complete.
    learner_first: bool = True
    #: A starting member waits until it is known that its disk is not an older copy.
    rolled_back_waits: bool = True


class Broken(Struct, frozen=True):
    """What one run breaks; nothing by default."""

    rules: Rules = ALL_RULES
    policies: Policies = Policies()


AS_IN_THE_PRODUCT = Broken()


def mutant(name: str) -> Broken:
    """Everything as in the product, but for the one rule or policy of that name."""
    if name in Rules.__struct_fields__:
        return Broken(rules=Rules(**{name: False}))
    return Broken(policies=Policies(**{name: False}))


MUTANTS = (*Rules.__struct_fields__, *Policies.__struct_fields__)
