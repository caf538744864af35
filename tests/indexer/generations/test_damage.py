from indexer.generations.damage import find_damage, withdraw
from tests.indexer.generations.published import Published


def damage_of(index: Published, generation: int) -> None:
    path = index.folder / str(generation) / "columns.json"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_generation_before_answers_for_a_damaged_one(published: Published) -> None:
    space_id = published.space()
    published.publish(space_id, published.save(space_id, "p0", 0))
    published.save(space_id, "p1", 1)
    published.publish(space_id)
    damage_of(published, 2)
    (damage,) = find_damage(published.engine, published.folder)
    assert withdraw(published.engine, published.folder, damage) == 1
    assert sorted(published.found(space_id).values()) == [0, 1]


def test_no_collection_is_taken_back_from_the_space_that_it_moved_to(published: Published) -> None:
    former, own = published.space(), published.space()
    published.publish(former, published.save(former, "p0", 0, collection="stays"))
    moves = published.save(former, "p1", 1, collection="moves")
    published.publish(former, moves)
    published.save(own, "p1", 2, collection="moves")
    published.publish(own, moves)
    # Only the new space knows of this one.
    published.save(own, "p2", 3, collection="moves")
    published.save(former, "p3", 4, collection="stays")
    published.publish(former)
    damage_of(published, 4)
    (damage,) = find_damage(published.engine, published.folder)
    assert withdraw(published.engine, published.folder, damage) is None
    assert published.current == {former: 4, own: 3}
    assert sorted(published.found(own).values()) == [2, 3]
