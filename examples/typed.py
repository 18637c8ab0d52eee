"""Annotations decide what travels: a model goes in, a model comes out, and a misfit never leaves.

Run it::

    python examples/typed.py

What appears::

    Invoice(number=17, total=Decimal('59.70'), due=datetime.date(2026, 2, 28))
    refused at the call: arguments of task 'typed.bill': order.quantity: Input should be greater than 0
    bill(...) as a plain function: 19.90

Arguments are checked before anything is sent (``ValidationMode.INPUTS``, the default), and again by the worker.
"""

import asyncio
from datetime import date, timedelta
from decimal import Decimal

from pydantic import BaseModel, PositiveInt

from chicory import Chicory, ValidationError, Worker


class Order(BaseModel):
    price: Decimal
    quantity: PositiveInt


class Invoice(BaseModel):
    number: int
    total: Decimal
    due: date


app = Chicory(broker="memory://")


@app.task
def bill(order: Order, day: date, number: int = 17) -> Invoice:
    return Invoice(number=number, total=order.price * order.quantity, due=day + timedelta(days=30))


async def main() -> None:
    order = Order(price=Decimal("19.90"), quantity=3)
    async with app, Worker(app):
        print(repr(await (await bill.delay(order, date(2026, 1, 29)))))
        try:
            await bill.delay({"price": "19.90", "quantity": 0}, date(2026, 1, 29))
        except ValidationError as error:
            print(f"refused at the call: {error}")
    here_and_now = bill(Order(price=Decimal("19.90"), quantity=1), date(2026, 1, 29))
    print(f"bill(...) as a plain function: {here_and_now.total}")


if __name__ == "__main__":
    asyncio.run(main())
