"""What the mounted server looks like in a browser."""

import re

from playwright.sync_api import expect

SLIDER = """
%pip install --quiet ipywidgets
import ipywidgets
slider = ipywidgets.IntSlider(value=7)
display(slider)
"""


def test_a_widget_that_the_user_installed_can_be_moved(person):
    walter = person("walter")
    walter.start()
    walter.open_notebook()
    walter.run_cell(SLIDER)
    expect(walter.page.locator(".jp-Notebook")).to_contain_text("gone when the server stops")
    readout = walter.page.locator(".jp-OutputArea .widget-readout")
    expect(readout).to_have_text("7")
    walter.page.locator(".jp-OutputArea .noUi-handle").press("ArrowRight")
    expect(readout).to_have_text("8")
    assert walter.run_cell("print(slider.value)").startswith("8\n")


def test_lab_asks_for_no_news_and_offers_no_upgrades(person):
    nora = person("nora")
    asked = []
    nora.page.on("request", lambda request: asked.append(request.url))
    nora.start()
    nora.open_notebook()
    assert nora.page.get_by_text(re.compile("official Jupyter news")).count() == 0
    outside = [url for url in asked if not url.startswith((nora.hub.url, "data:", "blob:"))]
    assert outside == []
