"""A map keyed by type, in layers."""

from __future__ import annotations

from ledger import Attribution, IdempotencyKey, RequestExtensions
from ledger.core.extensions import layers_of


class Note(str):
    """A text that is not `str` itself."""

    __slots__ = ()


def test_a_new_map_is_empty() -> None:
    """Nothing is in it, and asking for something answers None."""
    extensions = RequestExtensions()
    assert extensions.is_empty()
    assert None is extensions.get(Attribution)
    assert None is extensions.remove(Attribution)
    assert not extensions.contains(Attribution)


def test_values_may_be_given_at_once() -> None:
    """The constructor inserts each under its own type."""
    extensions = RequestExtensions(Attribution(run_id="r"), IdempotencyKey("k"))
    assert (Attribution(run_id="r"), IdempotencyKey("k")) == (
        extensions.get(Attribution),
        extensions.get(IdempotencyKey),
    )
    assert not extensions.is_empty()


def test_insert_returns_what_it_replaced() -> None:
    """The first time nothing, then the previous value of that type."""
    extensions = RequestExtensions()
    assert None is extensions.insert(IdempotencyKey("one"))
    assert None is extensions.insert(Attribution())
    assert IdempotencyKey("one") == extensions.insert(IdempotencyKey("two"))
    assert IdempotencyKey("two") == extensions.get(IdempotencyKey)


def test_a_falsy_value_is_a_value() -> None:
    """0 and the empty text are found, returned and removed like any other."""
    extensions = RequestExtensions(0)
    assert 0 == extensions.get(int)
    assert extensions.contains(int)
    assert not extensions.is_empty()
    assert 0 == extensions.insert(1)


def test_the_key_is_exactly_the_type() -> None:
    """A value is not found under its base class, nor instead of it."""
    extensions = RequestExtensions(Note("n"))
    assert None is extensions.get(str)
    assert None is extensions.insert("s")
    assert ("n", "s") == (extensions.get(Note), extensions.get(str))


def test_remove_takes_the_value_out() -> None:
    """It returns what it took, and leaves other types alone."""
    extensions = RequestExtensions("text", 7)
    assert "text" == extensions.remove(str)
    assert None is extensions.get(str)
    assert 7 == extensions.get(int)
    assert 7 == extensions.remove(int)
    assert extensions.is_empty()


def test_extending_lays_the_newer_on_top() -> None:
    """The newer value wins; what only the older layer has stays readable."""
    extensions = RequestExtensions("old", 1)
    extensions.extend(RequestExtensions("new", 2.0))
    assert ("new", 1, 2.0) == tuple(map(extensions.get, (str, int, float)))
    assert all(map(extensions.contains, (str, int, float)))


def test_removing_the_newer_shows_the_older() -> None:
    """The older layer is covered, not overwritten; removing again takes nothing from it."""
    extensions = RequestExtensions("old")
    extensions.extend(RequestExtensions("new"))
    assert "new" == extensions.remove(str)
    assert "old" == extensions.get(str)
    assert None is extensions.remove(str)
    assert "old" == extensions.get(str)
    assert extensions.contains(str)


def test_insert_touches_the_newest_layer_alone() -> None:
    """A value in an older layer is neither returned nor replaced."""
    extensions = RequestExtensions("old")
    extensions.extend(RequestExtensions())
    assert None is extensions.insert("new")
    assert "new" == extensions.remove(str)
    assert "old" == extensions.get(str)


def test_a_fallback_answers_where_nothing_newer_does() -> None:
    """It goes underneath, also underneath an earlier fallback."""
    extensions = RequestExtensions("own")
    extensions.push_fallback(RequestExtensions("first", 1))
    extensions.push_fallback(RequestExtensions("second", 2, 2.0))
    assert ("own", 1, 2.0) == tuple(map(extensions.get, (str, int, float)))
    extensions.remove(str)
    assert "first" == extensions.get(str)


def test_the_layers_of_both_sides_keep_their_order() -> None:
    """Extending with a layered map keeps its layers in order, above the ones here."""
    newer = RequestExtensions("middle")
    newer.extend(RequestExtensions("top"))
    extensions = RequestExtensions("bottom")
    extensions.extend(newer)
    assert "top" == extensions.remove(str)
    assert "middle" == extensions.get(str)
    assert RequestExtensions("top").get(str) == newer.get(str)


def test_what_is_laid_over_or_under_is_copied() -> None:
    """Later changes of the other map do not show, and changes here do not reach it."""
    newer, older = RequestExtensions("newer"), RequestExtensions(1)
    extensions = RequestExtensions()
    extensions.extend(newer)
    extensions.push_fallback(older)
    newer.insert("changed")
    older.insert(2)
    assert ("newer", 1) == (extensions.get(str), extensions.get(int))
    extensions.insert("mine")
    assert "changed" == newer.get(str)


def test_a_map_may_be_laid_over_itself() -> None:
    """It ends: the layers are doubled, and read the same."""
    extensions = RequestExtensions("text")
    extensions.extend(extensions)
    assert "text" == extensions.get(str)


def test_the_layers_that_are_handed_out_cannot_be_added_to() -> None:
    """They are a tuple, the newest first, and a map that grows later does not change it."""
    extensions = RequestExtensions("old")
    before = layers_of(extensions)
    extensions.extend(RequestExtensions("new"))
    assert ({str: "old"},) == before
    assert ({str: "new"}, {str: "old"}) == layers_of(extensions)


def test_emptiness_is_of_all_layers() -> None:
    """A value in any layer counts; empty layers do not."""
    extensions = RequestExtensions()
    extensions.extend(RequestExtensions())
    extensions.push_fallback(RequestExtensions())
    assert extensions.is_empty()
    extensions.push_fallback(RequestExtensions(1))
    assert not extensions.is_empty()


def test_it_prints_what_is_readable() -> None:
    """Covered values are not shown."""
    extensions = RequestExtensions("old", 1)
    extensions.extend(RequestExtensions("new"))
    assert "'new'" in repr(extensions)
    assert "'old'" not in repr(extensions)
