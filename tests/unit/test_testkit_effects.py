"""Effects: which calls are counted, and what is different between two runs."""

import pytest

from chicory.testing.effects import Effect, compare, watching


def calls(*keys, **fields):
    return [Effect(kind="charge()", shown=f"charge({key})", key=key, **fields) for key in keys]


def sent(*ids):
    return [Effect(kind="sending mail", shown="mail(1)", key=i, is_keyed=True, is_message=True) for i in ids]


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        (calls(1), calls(1), []),
        (calls(1), calls(1, 1), ["charge(1) happened twice, not once"]),
        (calls(1, 1), calls(1, 1, 1), ["charge(1) happened 3 times, not twice"]),
        (calls(1, 2), calls(1, 2, 2), ["charge(2) happened twice, not once"]),
        (calls(1, 2), calls(2, 2), ["charge(2) happened twice, not once"]),
        (calls("random-a"), calls("random-b"), []),
        (calls("random-a"), calls("b", "c"), ["charge() happened twice, with other arguments each, not once"]),
        (calls(1), calls(), ["charge() happened not at all, not once: it is lost"]),
        (calls(1, 2, 3), calls(1, 2), ["charge() happened twice, not 3 times: it is lost"]),
        (calls(), calls(1, 1), ["charge(1) happened twice, not once"]),
        (calls(1, is_keyed=True), calls(1, 1, is_keyed=True), []),
        (calls("a", is_keyed=True), calls("b", "b", is_keyed=True), []),
        (calls("a", is_keyed=True), calls("b", "c", is_keyed=True), ["charge() happened with 2 different keys, not 1"]),
        (calls("a", is_keyed=True), calls(is_keyed=True), ["charge() happened not at all, not once: it is lost"]),
        (calls(1, is_idempotent=True), calls(1, 1, is_idempotent=True), []),
        (calls(1, is_idempotent=True), calls(is_idempotent=True), ["charge() happened not at all, not once: it is lost"]),
        (sent("a"), sent("b"), []),
        (sent("a"), sent("b", "c"), ["mail(1) was sent twice, not once"]),
        (sent("order-1"), sent("order-1", "order-1"), []),
        (sent("a"), sent(), ["sending mail happened not at all, not once: it is lost"]),
        (
            calls(1) + sent("a"),
            calls(1, 1) + sent("b", "c"),
            ["charge(1) happened twice, not once", "mail(1) was sent twice, not once"],
        ),
    ],
)
def test_what_is_different_is_said(before, after, texts):
    assert [difference.text for difference in compare(before, after)] == texts


class Bank:
    def pay(self, order, amount=5):
        return ("paid", order, amount)

    async def pay_later(self, order):
        return ("later", order)

    @staticmethod
    def fee(amount):
        return amount / 100

    @classmethod
    def name(cls, suffix):
        return cls.__name__ + suffix


def watch(target, name, **options):
    seen = []
    return watching(target, name, seen.append, **{"key": None, "idempotent": False, **options}), seen


async def test_calls_are_counted_and_made():
    bank = Bank()
    holding, seen = watch(bank, "pay")
    with holding:
        assert bank.pay(17, amount=3) == ("paid", 17, 3)
        assert Bank().pay(18) == ("paid", 18, 5)
    later, seen_later = watch(Bank, "pay_later")
    with later:
        assert await bank.pay_later(19) == ("later", 19)

    assert [effect.shown for effect in seen] == ["pay(17, amount=3)"]
    assert len(seen_later) == 1
    assert "pay" not in vars(bank)


@pytest.mark.parametrize(("name", "argument", "value"), [("fee", 200, 2.0), ("name", "!", "Bank!")])
def test_static_and_class_methods_are_watched_and_given_back(name, argument, value):
    before = dict(vars(Bank))
    holding, seen = watch(Bank, name)

    with holding:
        assert getattr(Bank, name)(argument) == getattr(Bank(), name)(argument) == value

    assert len(seen) == 2
    assert dict(vars(Bank)) == before
    assert getattr(Bank, name)(argument) == value


@pytest.mark.parametrize(
    ("key", "expected"),
    [("order", 17), ("amount", 5), (lambda self_or_order, *rest, **named: ("k", self_or_order), ("k", 17))],
    ids=["given", "by default", "made"],
)
def test_a_key_is_an_argument_or_made_of_them(key, expected):
    bank = Bank()
    holding, seen = watch(bank, "pay", key=key)

    with holding:
        bank.pay(17)

    assert (seen[0].key, seen[0].is_keyed) == (expected, True)


def test_a_key_that_is_no_argument_is_refused():
    bank = Bank()
    holding, _ = watch(bank, "pay", key="ordr")

    with holding, pytest.raises(TypeError, match=r"pay\(\) has no argument 'ordr', only order, amount"):
        bank.pay(17)


def test_what_is_not_there_or_not_called_is_refused():
    with pytest.raises(AttributeError), watch(Bank, "nothing")[0]:
        pass
    with pytest.raises(TypeError, match="which is not called: watch a function"), watch(Bank(), "__doc__")[0]:
        pass
