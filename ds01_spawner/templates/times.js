// Shows every <time> in the viewer's own words and time zone; the server writes UTC.
window.ds01ShowTimes = (root) => {
  require(["moment"], (moment) => {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const at = moment(element.dateTime);
      element.textContent = at.fromNow();
      element.title = at.format("LLLL");
    }
  });
};
document.addEventListener("DOMContentLoaded", () => window.ds01ShowTimes(document));
